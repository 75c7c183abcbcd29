{{
    config(
        partition_by='event_date',
        order_by=['window_seconds', 'event_type', 'channel', 'window_start'],
    )
}}

{{ event_windows(rollup_widths()) }}
