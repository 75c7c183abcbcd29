{{
    config(
        partition_by='event_date',
        order_by=['window_seconds', 'channel', 'page', 'window_start'],
    )
}}

{{ performance_windows(rollup_widths()) }}
