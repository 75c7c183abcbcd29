{{
    config(
        partition_by='event_date',
        order_by=['channel', 'page', 'window_start'],
    )
}}

{{ performance_windows([var('window_seconds')]) }}
