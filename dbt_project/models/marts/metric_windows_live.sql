{{ config(materialized='view', tags=['metrics', 'daily']) }}

{{ batch_then_speed(ref('metric_windows'), ref('metric_windows_speed'), 'metrics', 'metric_date') }}
