/* SPDX-License-Identifier: BSD-2-Clause */

/* Which build of which object an address of code belongs to (design D5). */

#include <elf.h>
#include <link.h>
#include <string.h>

#include "replica/replica.h"

struct search {
    uintptr_t address;
    uint64_t build;
};

/* The first 8 bytes of the build id among an object's notes; 0: it is not there. */
static uint64_t build_id(const uint8_t *notes, size_t bytes)
{
    ElfW(Nhdr) note;

    for (size_t at = 0; at + sizeof note <= bytes;) {
        memcpy(&note, notes + at, sizeof note);
        size_t text = at + sizeof note + (note.n_namesz + 3u) / 4 * 4;
        uint64_t id;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_descsz >= sizeof id && text + sizeof id <= bytes) {
            memcpy(&id, notes + text, sizeof id);
            return id;
        }
        at = text + (note.n_descsz + 3u) / 4 * 4;
    }
    return 0;
}

static int look_in(struct dl_phdr_info *info, size_t size, void *arg)
{
    struct search *search = arg;
    bool holds = false;

    (void)size;
    for (unsigned i = 0; i < info->dlpi_phnum; i++)
        holds |= info->dlpi_phdr[i].p_type == PT_LOAD &&
                 search->address - info->dlpi_addr - info->dlpi_phdr[i].p_vaddr < info->dlpi_phdr[i].p_memsz;
    for (unsigned i = 0; holds && search->build == 0 && i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_NOTE)
            search->build =
                build_id((const uint8_t *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr), info->dlpi_phdr[i].p_memsz);
    return holds;
}

uint64_t sm_code_build(const void *code)
{
    struct search search = {.address = (uintptr_t)code};

    dl_iterate_phdr(look_in, &search);
    return search.build;
}
