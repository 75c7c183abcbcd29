{{
    config(
        partition_by='event_date',
        order_by=['event_type', 'channel', 'window_start'],
    )
}}

{{ event_windows([var('window_seconds')]) }}
