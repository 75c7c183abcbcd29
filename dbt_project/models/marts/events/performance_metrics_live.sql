{{ config(materialized='view') }}

{{ batch_then_speed(ref('performance_metrics'), ref('performance_metrics_speed'), 'events', 'event_date') }}
