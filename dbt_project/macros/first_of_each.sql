{#-
  The rows of a relation, each `id` once within var repeat_days: a row counts unless one with its id landed before it,
  for a day at most repeat_days before or after its own. So two rows that count are further apart, the first that landed
  always counts, and what lands later never takes a row away that has been counted: days may be built in any order.

  Landed before: by _ingested_at, _cursor, _offset, _message_id and _index. Copies that agree in all of them count once.

  `back` and `ahead` belong to a model that is kept by day and to data tests: the query holds rows of the days of this
  build alone, reaching that much further, as in_rebuilt_days. They are read with the ids of the repeat_days around
  them, once. Without them it is for any day, for views: a filter on `day` of whoever asks reaches every table here.

  `placed` is the day that in_rebuilt_days goes by, where it is another one than the day that repeats go by.

  `hash` is a column of hashes of the id, such as _key_hash of the raw tables; without one, ids are hashed here. Ids are
  looked for by their hash, and only where hashes agree are rows sorted and ids compared. A day whose ids came once costs
  a set of its hashes, and a look at the hashes of the days around.
-#}
{% macro first_of_each(relation, day, id, back=none, ahead=none, placed=none, hash=none) %}
  {%- set reach = headrace.setting('repeat_days') | int -%}
  {%- set placed = placed or day -%}
  {%- set same = placed == day or headrace.in_event_time() -%}
  {%- if back is none and ahead is none -%}
    {%- if same -%}
{{ headrace.first_of_any_day(relation, placed, id, hash, reach) }}
    {%- else -%}
{{ headrace.first_of_days(relation, day, id, hash, reach, 'true') }}
    {%- endif -%}
  {%- elif execute and model is mapping and model.config.materialized in ('view', 'ephemeral', 'materialized_view') -%}
    {{ exceptions.raise_compiler_error(
      "first_of_each with back and ahead is of the days of one build, and " ~ this ~ " is asked for others, too; leave them out"
    ) }}
  {%- elif headrace.rebuilt_range() is none -%}
{{ headrace.first_of_days(relation, day, id, hash, reach, 'true') }}
  {%- elif same -%}
{{ headrace.first_of_days(
    relation, placed, id, hash, reach,
    headrace.in_rebuilt_days(placed, back or 0, ahead or 0),
    headrace.in_rebuilt_days(placed, (back or 0) + reach, (ahead or 0) + reach) if reach else none,
    one_day=headrace.rebuilt_range()[0] == headrace.rebuilt_range()[1] and not (back or 0) + (ahead or 0)
) }}
  {%- else -%}
{{ headrace.first_of_days(
    relation, day, id, hash, reach,
    headrace.in_rebuilt_days(placed, back or 0, ahead or 0), headrace.landed_until_rebuilt(ahead or 0)
) }}
  {%- endif -%}
{% endmacro %}

{#- The events, each once; `back` and `ahead` as first_of_each takes them. -#}
{% macro events_once(back=none, ahead=none) -%}
{{ headrace.first_of_each(
    ref('stg_events'), 'occurred_date', 'event_id', back, ahead, placed='event_date', hash='_key_hash'
) }}
{%- endmacro %}

{#- The measurements, each once; `back` and `ahead` as first_of_each takes them. -#}
{% macro metrics_once(back=none, ahead=none) -%}
{{ headrace.first_of_each(
    ref('stg_metrics'), 'occurred_date', 'metric_id', back, ahead, placed='metric_date', hash='_key_hash'
) }}
{%- endmacro %}

{#- The order in which rows landed, as a tuple that has no nulls: an offset that is not known comes last. -#}
{% macro landing() -%}
  (_ingested_at, toString(_cursor), isNull(_offset), ifNull(_offset, 0), isNull(_message_id), ifNull(_message_id, ''), _index)
{%- endmacro %}

{#- The hash of an id in rows that are called `of`. -#}
{% macro id_hash(of, id, hash) -%}
  {{ of ~ '.' ~ hash if hash else 'cityHash64(' ~ of ~ '.' ~ id ~ ')' }}
{%- endmacro %}

{#- Condition on _ingested_at: a row may have landed before one that landed on the rebuilt days. -#}
{% macro landed_until_rebuilt(ahead) -%}
  _ingested_at < toDateTime64(toDate('{{ headrace.rebuilt_range()[1] }}') + {{ ahead + 1 }}, 6, 'UTC')
{%- endmacro %}

{#- Ids with their days and the first that landed on each, by hash, of rows of (id_hash, id, day, landing). -#}
{% macro first_landings(rows) %}
select id_hash, groupArray((id, day, first_landing)) as days
from (
    select id_hash, id, day, min(landing) as first_landing
    from (
        {{ rows }}
    )
    group by id_hash, id, day
)
group by id_hash
{% endmacro %}

{#-
  first_of_each of the rows that are `wanted`, with those `around` them in sight: conditions on the relation, which are
  constants, so that each is a set and no join. What landed after all of the wanted takes none of them away, and the
  index on _ingested_at passes it over. Days of `one_day` are not compared with each other.
-#}
{% macro first_of_days(relation, day, id, hash, reach, wanted, around=none, one_day=false) %}
{%- set id_hash = headrace.id_hash('landed', id, hash) -%}
{%- set row -%}
  {{ id_hash }} as id_hash, landed.{{ id }} as id, landed.{{ day }} as day, {{ headrace.landing() }} as landing
{%- endset -%}
{%- set came_again -%}
    select {{ id_hash }} as sent_again
    from {{ relation }} as landed
    where {{ wanted }}
    group by sent_again{{ ', landed.' ~ day if not reach and not around }}
    having count() > 1
{%- endset -%}
{%- set seen -%}
    {%- if not one_day %}
    select {{ row }}
    from {{ relation }} as landed
    where {{ wanted }}
        and {{ id_hash }} in ({{ came_again }})
    {%- endif %}
    {%- if around and not one_day %}
    union all
    {%- endif %}
    {%- if around %}
    select {{ row }}
    from {{ relation }} as landed
    where {{ around }}
        and not ({{ wanted }})
        and _ingested_at <= (select max(_ingested_at) from {{ relation }} where {{ wanted }})
        and {{ id_hash }} in (select {{ id_hash }} from {{ relation }} as landed where {{ wanted }})
    {%- endif %}
{%- endset -%}
with again as (

    select landed.*, {{ id_hash }} as id_hash
    from {{ relation }} as landed
    where {{ wanted }}
        and {{ id_hash }} in ({{ came_again }})

),

first_landed as (

    select *
    from again
    qualify row_number() over (
        partition by {{ day }}, {{ id }}
        order by {{ headrace.landing() }}
    ) = 1

),

once_a_day as (

    select landed.*, {{ id_hash }} as id_hash
    from {{ relation }} as landed
    where {{ wanted }}
        and {{ id_hash }} not in ({{ came_again }})
    union all
    select *
    from first_landed

)

select landed.* except (id_hash)
from once_a_day as landed
{%- if reach or around %}
left any join (
    {{ headrace.first_landings(seen) }}
) as seen
    on landed.id_hash = seen.id_hash
where empty(seen.days)
    or not arrayExists(
        one -> one.1 = landed.{{ id }}
            and abs(one.2 - landed.{{ day }}) <= {{ reach }}
            and one.3 < {{ headrace.landing() }},
        seen.days
    )
{%- endif %}
{% endmacro %}

{#- first_of_each of any day: each day is read with those around it, so that a filter on it finds its way to all. -#}
{% macro first_of_any_day(relation, day, id, hash, reach) %}
{%- set id_hash = headrace.id_hash('landed', id, hash) -%}
with came_again as (

    select landed.{{ day }} as day, {{ id_hash }} as id_hash
    from {{ relation }} as landed
    group by day, id_hash
    having count() > 1

),

again as (

    select landed.*, {{ id_hash }} as id_hash
    from {{ relation }} as landed
    left semi join came_again
        on landed.{{ day }} = came_again.day and {{ id_hash }} = came_again.id_hash

),

first_landed as (

    select *
    from again
    qualify row_number() over (
        partition by {{ day }}, {{ id }}
        order by {{ headrace.landing() }}
    ) = 1

),

once_a_day as (

    select landed.*, {{ id_hash }} as id_hash
    from {{ relation }} as landed
    left anti join came_again
        on landed.{{ day }} = came_again.day and {{ id_hash }} = came_again.id_hash
    union all
    select *
    from first_landed

)
{%- if not reach %}

select * except (id_hash) from once_a_day
{%- else %},

beside as (

    {%- for days in range(-reach, reach + 1) if days %}
    select
        landed.{{ day }} + {{ days }} as day,
        {{ id_hash }} as id_hash,
        landed.{{ id }} as id,
        {{ headrace.landing() }} as landing
    from {{ relation }} as landed
    {{ 'union all' if not loop.last }}
    {%- endfor %}

),

seen as (

    select day, id_hash, groupArray((id, landing)) as ids
    from beside
    left semi join (
        select landed.{{ day }} as day, {{ id_hash }} as id_hash from {{ relation }} as landed
    ) as own
        on beside.day = own.day and beside.id_hash = own.id_hash
    group by day, id_hash

)

select landed.* except (id_hash)
from once_a_day as landed
left any join seen on landed.{{ day }} = seen.day and landed.id_hash = seen.id_hash
where empty(seen.ids)
    or not arrayExists(one -> one.1 = landed.{{ id }} and one.2 < {{ headrace.landing() }}, seen.ids)
{%- endif %}
{% endmacro %}
