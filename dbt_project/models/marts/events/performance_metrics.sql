{{
    config(
        partition_by='event_date',
        order_by=['channel', 'page', 'window_start'],
    )
}}

{{ performance_windows([headrace.setting('window_seconds')]) }}
