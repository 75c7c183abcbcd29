{{ config(materialized='view') }}

{{ batch_then_speed(ref('event_metrics'), ref('event_metrics_speed'), 'events', 'event_date') }}
