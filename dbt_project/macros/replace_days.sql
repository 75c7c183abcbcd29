{#-
  insert_overwrite for tables with one partition per day: replaces every day of the rebuilt range, also the
  days that have become empty.

  Takes the place of dbt-clickhouse's macro of this name, which replaces only the partitions that the new rows
  fall into and so leaves an emptied day as it was. The days are built aside, then one ALTER swaps them in;
  ClickHouse runs its commands in order, each atomic: readers see a whole day, old or new.
-#}
{% macro clickhouse__incremental_insert_overwrite(existing_relation, partition_by, is_distributed=False) %}
  {%- if is_distributed -%}
    {{ exceptions.raise_compiler_error(this ~ ": insert_overwrite of distributed tables is not supported here") }}
  {%- endif -%}
  {%- set fresh = existing_relation.incorporate(
    path={"identifier": existing_relation.identifier ~ "__dbt_new_data_" ~ invocation_id.replace("-", "_")}
  ) -%}
  {{ drop_relation_if_exists(fresh) }}
  {% call statement('main') %}
    {{ get_create_table_as_sql(False, fresh, sql) }}
  {% endcall %}

  {% set find_partitions %}
    select
        partition_id,
        countIf(table = '{{ fresh.identifier }}') > 0 as is_rebuilt,
        ifNull({{ in_rebuilt_days('toDateOrNull(any(partition))') }}, false) as is_in_range
    from system.parts
    where active
        and database = '{{ existing_relation.schema }}'
        and table in ('{{ existing_relation.identifier }}', '{{ fresh.identifier }}')
    group by partition_id
    having is_rebuilt or is_in_range
    order by partition_id
  {% endset %}
  {% set partitions = run_query(find_partitions).rows %}

  {% set stray = partitions | rejectattr('is_in_range') | map(attribute='partition_id') | list %}
  {% if stray %}
    {% do adapter.drop_relation(fresh) %}
    {{ exceptions.raise_compiler_error(
      this ~ ": rows outside the rebuilt days " ~ rebuilt_range() | join(' to ') ~ ", in partitions " ~ stray | join(', ')
      ~ "; a model must yield only days of in_rebuilt_days(), and be partitioned by a day"
    ) }}
  {% endif %}

  {% if partitions %}
    {% call statement('replace_days') %}
      alter table {{ existing_relation }}
      {%- for partition in partitions %}
        {%- if partition['is_rebuilt'] %}
        replace partition id '{{ partition['partition_id'] }}' from {{ fresh }}
        {%- else %}
        drop partition id '{{ partition['partition_id'] }}'
        {%- endif -%}
        {{ ',' if not loop.last }}
      {%- endfor %}
    {% endcall %}
  {% endif %}
  {% do adapter.drop_relation(fresh) %}
{% endmacro %}
