{%- set lookaround = var('lookaround_days') | int -%}
{{
    config(
        tags=['metrics'],
        partition_by='metric_date',
        order_by=['metric_name', 'source', 'window_start'],
    )
}}

with readings_of_days as (

    select
        metric_date,
        {{ window_start('occurred_at') }} as window_start,
        metric_name,
        kind,
        unit,
        source,
        dimensions,
        occurred_at,
        metric_id,
        value
    from {{ ref('int_metrics_deduplicated') }}
    where {{ in_rebuilt_days('metric_date', back=lookaround) }}
        and ({{ in_rebuilt_days('metric_date') }} or kind = 'counter')

),

-- values in order of time: sums of floats then come out the same to the bit however often they are computed
windowed as (

    select
        metric_date,
        window_start,
        metric_name,
        kind,
        unit,
        source,
        dimensions,
        arraySort(groupArray((occurred_at, metric_id, value))) as ordered,
        arrayMap(reading -> reading.3, ordered) as readings,
        ordered[1].1 as first_at,
        ordered[-1].1 as last_at,
        readings[-1] as last_value
    from readings_of_days
    group by metric_date, window_start, metric_name, kind, unit, source, dimensions

),

-- a counter grows from the reading before the window's first, where that is at most lookaround_days old; the
-- reading before a series' first is taken to be of 1970
linked as (

    select
        *,
        lagInFrame(metric_date) over earlier as earlier_date,
        lagInFrame(last_at) over earlier as earlier_at,
        lagInFrame(last_value) over earlier as earlier_value,
        kind = 'counter' and metric_date - earlier_date <= {{ lookaround }} as has_earlier,
        if(has_earlier, arrayPushFront(readings, earlier_value), readings) as steps,
        if(has_earlier, earlier_at, first_at) as grows_from
    from windowed
    window earlier as (
        partition by metric_name, kind, unit, source, toJSONString(dimensions)
        order by window_start
        rows between unbounded preceding and current row
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
        dateDiff('microsecond', grows_from, last_at) / 1e6 as grew_seconds
    from linked
    where {{ in_rebuilt_days('metric_date') }}

)

select
    metric_date,
    window_start,
    toUInt32({{ var('window_seconds') }}) as window_seconds,
    metric_name,
    kind,
    unit,
    source,
    dimensions,
    length(readings) as measurements,
    arraySum(readings) as sum_value,
    arrayMin(readings) as min_value,
    arrayMax(readings) as max_value,
    sum_value / measurements as avg_value,
    last_value,
    increase,
    if(grew_seconds > 0, increase / grew_seconds, null) as rate_per_second
from grown
