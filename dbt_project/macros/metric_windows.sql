{#- metric_windows for windows of these widths, s. -#}
{% macro measured_windows(widths) %}
{%- set lookaround = headrace.setting('lookaround_days') | int -%}
with readings_of_days as (

    select
        metric_date,
        arrayJoin({{ headrace.window_widths(widths) }}) as window_seconds,
        {{ headrace.window_start('window_time', 'window_seconds') }} as window_start,
        metric_name,
        kind,
        unit,
        source,
        dimensions,
        {{ headrace.series() }} as series,
        window_time,
        metric_id,
        value
    from (
        {{ headrace.metrics_once(back=lookaround, ahead=0) }}
    )
    where {{ headrace.in_rebuilt_days('metric_date', back=lookaround) }}
        and ({{ headrace.in_rebuilt_days('metric_date') }} or kind = 'counter')

),

windowed as (

    select
        metric_date,
        window_start,
        window_seconds,
        series,
        any(readings_of_days.metric_name) as metric_name,
        any(readings_of_days.kind) as kind,
        any(readings_of_days.unit) as unit,
        any(readings_of_days.source) as source,
        any(readings_of_days.dimensions) as dimensions,
        groupArray((window_time, metric_id, value)) as arrived
    from readings_of_days
    group by metric_date, window_start, window_seconds, series

),

{{ headrace.metric_columns('windowed', 'where ' ~ headrace.in_rebuilt_days('metric_date')) }}
{% endmacro %}

{#- What identifies a series, in 128 bits instead of five columns: half the cost of grouping and sorting by them. -#}
{% macro series() -%}
  sipHash128(metric_name, kind, unit, source, dimensions)
{%- endmacro %}

{#-
  The mart's columns from `windowed`, whose `arrived` holds the (time, id, value) of a window in any order; `wanted`
  filters the windows after those before them have been looked at.

  Values are taken in order of time: sums of floats then come out the same to the bit however often they are computed.
-#}
{% macro metric_columns(windowed, wanted) %}
ordered as (

    select
        *,
        arraySort(arrived) as in_order,
        arrayMap(reading -> reading.3, in_order) as readings,
        in_order[1].1 as first_at,
        in_order[-1].1 as last_at,
        readings[-1] as last_value
    from {{ windowed }}

),

-- a counter grows from the reading before the window's first, where that is at most lookaround_days old; the
-- reading before a series' first is taken to be of 1970
linked as (

    select
        *,
        lagInFrame(metric_date) over earlier as earlier_date,
        lagInFrame(last_at) over earlier as earlier_at,
        lagInFrame(last_value) over earlier as earlier_value,
        kind = 'counter' and metric_date - earlier_date <= {{ headrace.setting('lookaround_days') | int }} as has_earlier,
        if(has_earlier, arrayPushFront(readings, earlier_value), readings) as steps,
        if(has_earlier, earlier_at, first_at) as grows_from
    from ordered
    window earlier as (
        partition by window_seconds, series
        order by window_start
        rows between 1 preceding and current row
    )

),

-- a reading below the one before it is a counter that started again from zero
grown as (

    select
        *,
        if(
            kind = 'counter' and length(steps) > 1,
            arraySum(
                arrayMap(
                    (earlier, later) -> if(later < earlier, later, later - earlier),
                    arrayPopBack(steps),
                    arrayPopFront(steps)
                )
            ),
            null
        ) as increase,
        dateDiff('microsecond', grows_from, last_at) / 1e6 as grew_seconds,
        arrayReduce('quantilesExactInclusive(0.5, 0.75, 0.95, 0.99)', readings) as quantiles
    from linked
    {{ wanted }}

)

select
    metric_date,
    window_start,
    window_seconds,
    toLowCardinality(grown.metric_name) as metric_name,
    toLowCardinality(grown.kind) as kind,
    toLowCardinality(grown.unit) as unit,
    toLowCardinality(grown.source) as source,
    cast(grown.dimensions, 'Map(LowCardinality(String), String)') as dimensions,
    length(readings) as measurements,
    arraySum(readings) as sum_value,
    arrayMin(readings) as min_value,
    arrayMax(readings) as max_value,
    sum_value / measurements as avg_value,
    last_value,
    increase,
    if(grew_seconds > 0, increase / grew_seconds, null) as rate_per_second,
    if(grown.kind = 'histogram', quantiles[1], null) as p50_value,
    if(grown.kind = 'histogram', quantiles[2], null) as p75_value,
    if(grown.kind = 'histogram', quantiles[3], null) as p95_value,
    if(grown.kind = 'histogram', quantiles[4], null) as p99_value
from grown
{% endmacro %}
