{#-
  Rows of a stream that were published while this dbt command ran, or may have been: a mart that was built by then and
  a test that comes later do not read the same. Their days are touched again, and so will be built and tested again.

  Those ingested since it began, and all of the days for which a publication was recorded since (a warehouse that was
  away catches up with rows that were ingested long before). Also all of the days of which rows were in the lake and
  not published when it began: DBT_ARRIVING_DAYS names them, as YYYY-MM-DD with commas between. A publisher adds rows
  before it records them, and a test may come between the two.
-#}
{% macro arriving(stream, day, columns, back=0, ahead=0) %}
  {%- set began = "toDateTime64('" ~ run_started_at.strftime('%Y-%m-%d %H:%M:%S.%f') ~ "', 6, 'UTC')" -%}
  {%- set raw = env_var('HEADRACE_RAW_DATABASE', 'raw') -%}
  {#- not while dbt parses: another value would be a reason to parse anew -#}
  {%- set on_their_way = env_var('DBT_ARRIVING_DAYS', '') if execute else '' -%}
  {%- set publications = api.Relation.create(schema=raw, identifier='_publications') -%}
  select {{ columns }}
  from {{ ref('stg_' ~ stream) }}
  where {{ headrace.in_rebuilt_days(day, back=back, ahead=ahead) }}
      and (
          _ingested_at >= {{ began }}
          {%- if on_their_way %}
          or {{ day }} in ({{ headrace.quoted_list(on_their_way.split(',')) }})
          {%- endif %}
          or {{ day }} in (
              select arrayJoin({{ 'days' if headrace.in_event_time() else 'landed_days' }})
              from {{ publications }}
              where table = '{{ stream }}' and published_at >= {{ began }}
          )
      )
{% endmacro %}
