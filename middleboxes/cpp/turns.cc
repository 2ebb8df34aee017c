/* SPDX-License-Identifier: BSD-2-Clause */
/* turns: objects of C++ in the arena. Each conversation has one, of a class that its protocol chooses, with virtual
 * functions; it drops data before both ends of TCP have met, and datagrams of an end that nobody answers. */

#include <splitmerge/splitmerge.h>

#include <cstdint>
#include <cstdio>
#include <new>
#include <typeinfo>

#ifndef UNANSWERED
#define UNANSWERED 3 /* datagrams of one end in a row that pass */
#endif

namespace
{

/* In memory of its flow: it moves with the flow, and outlives the process. So what it points to lies there too, and
 * nobody calls a destructor: the memory goes with the flow. */
class Conversation
{
  public:
    Conversation() = default;
    Conversation(const Conversation &) = delete;
    Conversation &operator=(const Conversation &) = delete;

    virtual bool admits(const sm_packet *packet) = 0;
    virtual size_t bytes() const = 0;

  protected:
    ~Conversation() = default;
};

class Stream final : public Conversation
{
  public:
    bool admits(const sm_packet *packet) override
    {
        const sm_headers *headers = sm_packet_headers(packet);
        if (headers->l4 == 0 || sm_packet_caplen(packet) < headers->l4 + 14u)
            return true;
        const uint8_t flags = sm_packet_data(packet)[headers->l4 + 13];
        if (flags & SYN)
            seen |= headers->flags & SM_HDR_REVERSE ? 1 : 2;
        return seen == 3 || flags & SYN;
    }

    size_t bytes() const override { return sizeof *this; }

  private:
    static constexpr uint8_t SYN = 2;
    unsigned seen = 0; /* of whom, a bit each */
};

class Datagrams final : public Conversation
{
  public:
    bool admits(const sm_packet *packet) override
    {
        const bool reverse = sm_packet_headers(packet)->flags & SM_HDR_REVERSE;
        if (reverse != last)
            row = 0;
        last = reverse;
        return ++row <= UNANSWERED;
    }

    size_t bytes() const override { return sizeof *this; }

  private:
    uint64_t row = 0;
    bool last = false;
};

/* The record of a flow. */
struct Entry {
    Conversation *conversation;
};

sm_class conversations;
uint16_t out_of_turn;

/* A new T in memory of the flow, or null. */
template <class T> T *make(sm_replica *replica, sm_flow flow)
{
    static_assert(alignof(T) <= 16, "what sm_alloc() promises");
    void *memory = sm_alloc(replica, conversations, flow, sizeof(T));
    return memory ? new (memory) T : nullptr;
}

Conversation *begin(sm_replica *replica, const sm_packet *packet, sm_flow flow)
{
    if (sm_packet_headers(packet)->protocol == 6)
        return make<Stream>(replica, flow);
    return make<Datagrams>(replica, flow);
}

void on_packet(sm_replica *replica, sm_packet *packet, void *)
{
    sm_flow flow;

    if (sm_flow_create(replica, conversations, packet, 0, &flow, nullptr) != 0)
        return;
    Conversation *&conversation = static_cast<Entry *>(flow.state)->conversation;
    if (!conversation)
        conversation = begin(replica, packet, flow);
    /* It may write to itself wherever it likes: as a whole it is kept as it was, should we die in this burst. */
    if (conversation && sm_writable(replica, conversation, 0, conversation->bytes()) && !conversation->admits(packet))
        sm_packet_drop(packet, out_of_turn);
}

int setup(sm_replica *replica)
{
    sm_class_options options{};

    options.size = sizeof options;
    options.name = "conversations";
    options.version = 1;
    options.granularity = SM_BY_FLOW;
    options.record_size = sizeof(Entry);
    options.alloc_limit = 256;
    options.code = &typeid(Conversation); /* lies where the virtual tables do */
    int result = sm_class_register(replica, &options, &conversations);
    return result ? result : sm_drop_reason(replica, "out_of_turn", &out_of_turn);
}

} // namespace

int main(int argc, char **argv)
{
    sm_options options{};
    sm_errbuf error{};
    sm_replica *replica;

    options.size = sizeof options;
    options.name = "turns";
    options.on_packet = on_packet;
    options.input = argc > 1 ? argv[1] : nullptr;
    options.output = argc > 2 ? argv[2] : nullptr;
    int result = sm_open(&replica, &options, &error);
    if (result == 0 && (result = setup(replica)) == 0 && (result = sm_start(replica, &error)) == 0)
        if ((result = sm_run(replica)) != 0)
            std::snprintf(error.text, sizeof error.text, "%s", sm_last_error(replica));
    if (result)
        std::fprintf(stderr, "turns: %s\n", error.text[0] ? error.text : sm_strerror(result));
    sm_close(replica);
    return result != 0;
}
