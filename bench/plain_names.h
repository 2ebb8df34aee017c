/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The limiter's sources compiled once more under other names, so that what they ask of the library is answered by a
 * plain table (plain.c). Included before them by the compiler.
 */

#define limiter_create plain_limiter_create
#define limiter_destroy plain_limiter_destroy
#define limiter_detach plain_limiter_detach
#define limiter_register plain_limiter_register
#define limiter_started plain_limiter_started
#define limiter_counts plain_limiter_counts
#define limiter_packet plain_limiter_packet
#define policy_load plain_policy_load
#define policy_parse plain_policy_parse
#define policy_free plain_policy_free
#define policy_compile plain_policy_compile
#define policy_match plain_policy_match
#define policy_parse_burst plain_policy_parse_burst
#define policy_parse_rate plain_policy_parse_rate
#define policy_read_prefixes plain_policy_read_prefixes
#define policy_read_tree plain_policy_read_tree
#define policy_allow plain_policy_allow
#define policy_find plain_policy_find

#define sm_class_known plain_class_known
#define sm_class_partitioned plain_class_partitioned
#define sm_class_register plain_class_register
#define sm_counter_add plain_counter_add
#define sm_counter_read plain_counter_read
#define sm_counters_register plain_counters_register
#define sm_drop_reason plain_drop_reason
#define sm_drop_reasons plain_drop_reasons
#define sm_flow_close plain_flow_close
#define sm_flow_create plain_flow_create
#define sm_flow_escrow plain_flow_escrow
#define sm_flow_get plain_flow_get
#define sm_flow_put plain_flow_put
#define sm_flow_timer_set plain_flow_timer_set
#define sm_flow_unescrow plain_flow_unescrow
#define sm_packet_caplen plain_packet_caplen
#define sm_packet_data plain_packet_data
#define sm_packet_delay plain_packet_delay
#define sm_packet_drop plain_packet_drop
#define sm_packet_headers plain_packet_headers
#define sm_packet_key plain_packet_key
#define sm_packet_len plain_packet_len
#define sm_packet_pass plain_packet_pass
#define sm_packet_time plain_packet_time
#define sm_packet_writable plain_packet_writable
#define sm_shared_high plain_shared_high
#define sm_shared_low plain_shared_low
#define sm_shared_wait plain_shared_wait
#define sm_slot plain_slot
#define sm_standalone plain_standalone
