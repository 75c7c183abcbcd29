{{
    config(
        partition_by='event_date',
        order_by=['event_type', 'channel', 'window_start'],
    )
}}

{{ event_windows([headrace.setting('window_seconds')]) }}
