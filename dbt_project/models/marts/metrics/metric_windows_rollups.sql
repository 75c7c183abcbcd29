{{
    config(
        partition_by='metric_date',
        order_by=['window_seconds', 'metric_name', 'source', 'window_start'],
    )
}}

{{ measured_windows(rollup_widths()) }}
