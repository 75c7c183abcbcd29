{{
    config(
        partition_by='metric_date',
        order_by=['metric_name', 'source', 'window_start'],
    )
}}

{{ measured_windows([headrace.setting('window_seconds')]) }}
