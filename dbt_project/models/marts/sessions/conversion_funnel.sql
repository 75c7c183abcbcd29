{{ config(materialized='view') }}

{{ funnel_of(ref('session_metrics')) }}
