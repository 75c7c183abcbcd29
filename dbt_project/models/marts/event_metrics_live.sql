{{ config(materialized='view', tags=['events', 'daily']) }}

{{ batch_then_speed(ref('event_metrics'), ref('event_metrics_speed'), 'events', 'event_date') }}
