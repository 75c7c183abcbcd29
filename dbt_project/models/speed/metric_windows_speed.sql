{{ config(tags=['metrics', 'speed']) }}

with windowed as (

    select
        metric_date,
        window_start,
        toUInt32({{ headrace.setting('window_seconds') }}) as window_seconds,
        metric_name,
        kind,
        unit,
        source,
        dimensions,
        {{ series() }} as series,
        groupArrayMerge(arrived) as arrived
    from {{ every_shard(ref('speed_metric_windows')) }}
    group by metric_date, window_start, metric_name, kind, unit, source, dimensions

),

{{ metric_columns('windowed', '') }}
