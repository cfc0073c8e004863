"""The tests that are slow: they start programs or a browser, or try very many cases.

``-m "not slow"`` deselects them. A test may also have the marker itself.
"""

from __future__ import annotations

MODULES = {
    "test_benchmarks.py",
    "test_browser.py",
    "test_cuts.py",
    "test_demo.py",
    "test_demo_picture.py",
    "test_deploying.py",
    "test_examples.py",
    "test_extra.py",
    "test_gateway_serving.py",
    "test_interrupted_loading.py",
    "test_kept_children.py",
    "test_node.py",
    "test_node_frames.py",
    "test_node_jobs.py",
    "test_node_odd.py",
    "test_process_channels.py",
    "test_processes.py",
    "test_programs_together.py",
    "test_resumption_drill.py",
    "test_serving.py",
    "test_standard_streams.py",
    "test_tutorial.py",
    "test_typing.py",
}
"""Modules in which all or most tests are slow."""

TESTS = {
    "test_argument_kinds.py": {
        "test_an_ambiguous_argument_is_refused_at_the_caller_if_no_annotation_decides",
    },
    "test_backlog.py": {"test_a_reconnecting_client_gets_each_message_once_and_in_order"},
    "test_bad_connections.py": {
        "test_max_message_is_the_limit_of_a_gateways_websockets",
    },
    "test_calling.py": {
        "test_a_child_process_that_does_not_start_is_an_error",
        "test_call_runs_as_a_program",
        "test_ctrl_c_during_a_call_cancels_its_handler",
        "test_stream_runs_as_a_program",
    },
    "test_dns.py": {
        "test_an_address_that_three_answers_lack_is_drained",
        "test_the_name_is_asked_again_every_30_s_and_new_addresses_are_used",
        "test_while_a_name_does_not_resolve_its_addresses_are_kept",
    },
    "test_draining.py": {
        "test_a_client_with_a_call_in_flight_gets_its_result",
    },
    "test_faults.py": {"test_hostile_error_maps_give_an_exception_or_a_decode_error"},
    "test_faulty_links.py": {
        "test_a_link_that_delivers_slices_conforms",
    },
    "test_forwarding.py": {"test_a_carrier_cut_at_any_byte_breaks_its_channels_without_hanging"},
    "test_forwarding_core.py": {
        "test_exceeding_the_credit_by_one_byte_is_illegal",
    },
    "test_gateway_garbage.py": {
        "test_a_page_leaves_no_garbage",
    },
    "test_laws_bounds.py": {
        "test_a_flood_of_calls_that_are_cancelled_at_once_leaves_nothing_running"
    },
    "test_lifecycle_model.py": {"test_the_stage_of_a_session_agrees_with_its_flags"},
    "test_listing.py": {
        "test_no_instance_can_be_reached",
    },
    "test_lost_servers.py": {
        "test_a_peer_without_http_is_not_a_gateway",
    },
    "test_models.py": {"test_a_model_arrives_as_it_was_sent_on_every_path"},
    "test_mutations.py": {
        "test_a_fault_is_noticed_or_survives_and_the_checkout_stays_as_it_was",
        "test_listing_with_a_seed_is_reproducible",
    },
    "test_nats_channel.py": {
        "test_an_idle_channel_lasts",
    },
    "test_nats_client.py": {
        "test_an_idle_server_that_answers_pings_is_kept",
    },
    "test_nats_sessions.py": {
        "test_a_full_connection_sends_clients_elsewhere",
        "test_a_pool_calls_each_instance",
    },
    "test_one_to_one_garbage.py": {
        "test_a_process_that_is_kept_leaves_no_garbage",
    },
    "test_pasted_commands.py": {"test_the_pasted_commands_work"},
    "test_programs.py": {
        "test_a_program_prints_the_output_on_its_page",
        "test_commands_of_two_processes_call_each_other_through_a_crash_and_a_restart",
    },
    "test_provider_cuts.py": {"test_calls_end_with_their_true_fate_whenever_the_connection_is_cut"},
    "test_protocol_bad_input.py": {
        "test_messages_with_random_fields_are_harmless_or_a_protocol_error",
        "test_any_flipped_bit_is_harmless_or_a_protocol_error",
        "test_a_malformed_message_ends_the_session_in_every_state",
    },
    "test_protocol_model.py": {"runTest"},
    "test_protocol_states.py": {
        "test_each_message_is_accepted_only_in_the_same_states",
        "test_each_message_can_be_sent_only_in_its_states",
    },
    "test_races.py": {
        "test_10000_concurrent_calls_of_a_sleeping_method",
        "test_a_flood_of_notifications_keeps_its_order_and_its_bounds",
    },
    "test_readme.py": {"test_server_and_client_print_the_output_in_the_readme"},
    "test_relay.py": {
        "test_an_orderly_end_is_passed_on_the_other_way",
    },
    "test_resumable.py": {"test_every_packet_arrives_once_over_failing_connections"},
    "test_resumption_model.py": {
        "test_packets_sent_between_the_steps_of_a_reconnection_arrive_once_and_in_order",
        "test_race_an_action_happens_at_each_step_of_a_replay",
    },
    "test_scan_models.py": {"test_the_sample_page_awaits_a_post_with_two_callbacks"},
    "test_service_provider.py": {
        "test_a_channel_that_ends_by_itself_is_opened_again_with_growing_delays",
        "test_a_channel_that_lasted_is_opened_again_soon",
    },
    "test_session_model.py": {
        "test_sessions_over_a_channel_that_delays",
        "test_sessions_over_a_channel_that_delays_and_cuts",
    },
    "test_spread_links.py": {
        "test_a_name_that_a_stranger_made_up_is_not_part_of_a_subject",
        "test_instances_find_each_other_through_nats",
    },
    "test_standalone.py": {
        "test_a_deflate_bomb_does_not_inflate",
    },
    "test_suite.py": {
        "test_a_test_that_interrupts_passes_although_the_parent_ignores_signals",
        "test_no_cancel_scope_hides_a_failed_pytest_raises",
    },
    "test_usage.py": {"test_the_command_line_runs_as_a_program"},
    "test_under_load.py": {"test_a_server_under_load_is_measured_and_nothing_is_lost"},
    "test_values.py": {"test_a_value_is_read_back_equal_by_the_same_annotation_or_is_refused"},
    "test_websocket.py": {
        "test_bytes_without_a_packet_are_bounded",
    },
    "test_wire_bombs.py": {"test_a_claimed_length_of_4_gib_allocates_nothing"},
    "test_waiting_calls.py": {
        "test_a_cut_at_any_byte_ends_each_waiting_call_once_with_its_true_fate"
    },
    "test_wire_framing.py": {
        "test_the_rest_of_a_large_packet_can_be_received_straight_into_its_buffer"
    },
    "test_wire_malformed.py": {
        "test_mutated_messages_give_messages_or_a_decode_error",
        "test_random_payloads_give_values_or_a_decode_error",
    },
    "test_wire_roundtrip.py": {
        "test_every_message_is_decoded_equal",
        "test_every_value_is_decoded_equal",
        "test_a_packet_holds_any_messages_back_to_back",
    },
    "test_wire_time.py": {
        "test_converting_the_largest_allowed_message_takes_bounded_time",
        "test_the_largest_message_of_each_kind_is_decoded_in_bounded_time",
    },
}
"""Slow tests of other modules."""


def is_slow(module, test):
    """Tell whether a test is slow, by the name of its file and its own."""
    return module in MODULES or test in TESTS.get(module, ())
