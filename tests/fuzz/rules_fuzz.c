/* SPDX-License-Identifier: BSD-2-Clause */
/* Rule files of any content: refused with one line that names the file, or read; then spans are asked. */
#include <stdlib.h>
#include <string.h>

#include "rules.h"

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static const char begin[] = "alert tcp any any -> any any (";
    struct sm_errbuf error = {""};
    const size_t more = size > 0 && input[0] & 1 ? sizeof begin - 1 : 0; /* half of them get past a header */
    char *text = malloc(size + more + 1);

    memcpy(text, begin, more);
    if (size > 0)
        memcpy(text + more, input, size);
    struct rules *rules = rules_parse("fuzz", text, size + more, &error);
    if (!rules && (strncmp(error.text, "fuzz:", 5) != 0 || strchr(error.text, '\n')))
        abort();
    for (unsigned i = 0; rules && i < rules->count; i++) {
        const struct rule *rule = &rules->rules[i];
        span_has(rule->source, 4, (const uint8_t *)"\12\0\0\1", 4);
        span_has(rule->destination_ports, 0, (const uint8_t *)"\0P", 2);
        for (unsigned k = 0; k < rule->content_count; k++)
            if (strlen(rule->msg) > RULE_TEXT || rule->contents[k].text[rule->contents[k].length] != '\0')
                abort();
    }
    rules_destroy(rules);
    free(text);
    return 0;
}
