/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SPLITMERGE_RECORD_H
#define SPLITMERGE_RECORD_H

/*
 * A flow's state outside of the arena: as a class's encode callback writes it and its decode callback reads it, for
 * checkpoints, for moves that copy, and for another version of the middlebox. What is written is a map of named values,
 * so a later version finds what an earlier one wrote, and `smctl flow show` can print it.
 *
 * Both sides are used inside their callback only, on the replica's thread.
 */

#include <splitmerge/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SM_RECORD_DEPTH 8 /* lists and maps in one another, the outermost counted */

/*
 * Writing. `name` is the value's in a map, NULL in a list. Nothing fails here: what does not fit, is misnamed, or
 * leaves a list open makes the encoding of the flow fail once the callback has returned. Bytes and texts are copied.
 */
struct sm_writer;
SM_EXPORT void sm_write_uint(struct sm_writer *writer, const char *name, uint64_t value);
SM_EXPORT void sm_write_int(struct sm_writer *writer, const char *name, int64_t value);
SM_EXPORT void sm_write_double(struct sm_writer *writer, const char *name, double value);
SM_EXPORT void sm_write_bool(struct sm_writer *writer, const char *name, bool value);
SM_EXPORT void sm_write_text(struct sm_writer *writer, const char *name, const char *text); /* UTF-8 */
SM_EXPORT void sm_write_bytes(struct sm_writer *writer, const char *name, const void *bytes, size_t length);
SM_EXPORT void sm_write_list(struct sm_writer *writer, const char *name); /* values follow, until sm_write_end() */
SM_EXPORT void sm_write_map(struct sm_writer *writer, const char *name);  /* as a list, of named values */
SM_EXPORT void sm_write_end(struct sm_writer *writer);

/*
 * Reading. A value, by value; all zero: none. What a callback is given is whole and well-formed, but its contents may
 * be anything: they may come from a file. A getter gives `otherwise` for what is absent, of another type, or out of the
 * type's range.
 */
typedef struct sm_value {
    const uint8_t *at, *end;
} sm_value;

SM_EXPORT sm_value sm_value_get(sm_value map, const char *name); /* none where there is none, or `map` is no map */
SM_EXPORT uint64_t sm_value_uint(sm_value value, uint64_t otherwise);
SM_EXPORT int64_t sm_value_int(sm_value value, int64_t otherwise);
SM_EXPORT double sm_value_double(sm_value value, double otherwise); /* integers too */
SM_EXPORT bool sm_value_bool(sm_value value, bool otherwise);

/* Text (without a final zero) or bytes, where they lie in what is read; NULL and *length 0: it is neither. */
SM_EXPORT const void *sm_value_bytes(sm_value value, size_t *length);

/* The next value of a list, or of a map: start with *item all zero; false: that was the last, or it is neither. */
SM_EXPORT bool sm_value_next(sm_value list, sm_value *item);

#ifdef __cplusplus
}
#endif

#endif
