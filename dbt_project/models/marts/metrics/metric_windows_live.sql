{{ config(materialized='view') }}

{{ batch_then_speed(ref('metric_windows'), ref('metric_windows_speed'), 'metrics', 'metric_date') }}
