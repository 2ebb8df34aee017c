/* SPDX-License-Identifier: BSD-2-Clause */
/* Prints how many packets a capture has, by a shared counter: in C++. */

#include <splitmerge/splitmerge.h>

#include <iostream>
#include <memory>

struct Closer {
    void operator()(sm_replica *replica) const { sm_close(replica); }
};

int main(int argc, char **argv)
{
    sm_counter packets{};
    sm_options options{};
    sm_errbuf error{};
    sm_replica *opened;

    options.size = sizeof options;
    options.name = "consumer";
    options.on_packet = [](sm_replica *replica, sm_packet *, void *user) {
        sm_counter_add(replica, *static_cast<sm_counter *>(user), 1);
    };
    options.user = &packets;
    options.input = argc > 1 ? argv[1] : "-";
    if (sm_open(&opened, &options, &error) != 0) {
        std::cerr << error.text << "\n";
        return 1;
    }
    std::unique_ptr<sm_replica, Closer> replica(opened);
    if (sm_counter_register(opened, "packets", &packets) != 0 || sm_start(opened, &error) != 0 || sm_run(opened) != 0) {
        std::cerr << error.text << "\n";
        return 1;
    }
    std::cout << sm_counter_read(opened, packets, nullptr) << " packets, splitmerge " << SPLITMERGE_VERSION << "\n";
}
