{#-
  Takes the place of dbt-clickhouse's macro of this name for the models of this package. dbt looks overrides up in the
  package of a model and in the root project: root/headrace.sql does the same for a project of the user's own.
-#}
{% macro clickhouse__incremental_insert_overwrite(existing_relation, partition_by, is_distributed=False) %}
  {{ return(headrace.replace_days(existing_relation, is_distributed)) }}
{% endmacro %}

{#-
  insert_overwrite for tables with one partition per day: replaces every day of the rebuilt range, also the
  days that have become empty. With meta later_days a model replaces all days after the range, too.

  dbt-clickhouse's own replaces only the partitions that the new rows
  fall into and so leaves an emptied day as it was. The days are built aside, then one ALTER swaps them in;
  ClickHouse runs its commands in order, each atomic: readers see a whole day, old or new.

  On a cluster the days are built aside on every shard, and the ALTER goes to the local tables ON CLUSTER: readers see
  a whole day, old or new, of each shard. A shard to which no new row of a day fell gives up the ones it had.
-#}
{% macro replace_days(existing_relation, is_distributed=False) %}
  {%- set fresh = existing_relation.incorporate(
    path={"identifier": existing_relation.identifier ~ "__dbt_new_data_" ~ invocation_id.replace("-", "_")}
  ) -%}
  {%- set kept = existing_relation -%}
  {%- set later_days = config.get('meta', {}).get('later_days', false) -%}
  {{ drop_relation_if_exists(fresh) }}
  {%- if is_distributed -%}
    {%- set suffix = adapter.get_clickhouse_local_suffix() -%}
    {%- set kept = existing_relation.incorporate(path={"identifier": existing_relation.identifier ~ suffix}) -%}
    {%- set spread = existing_relation.incorporate(path={"identifier": fresh.identifier ~ "_everywhere"}) -%}
    {{ create_distributed_local_table(spread, fresh, existing_relation, sql, config.get('contract').enforced) }}
    {% do adapter.drop_relation(spread) %}
    {% call statement('main') %}
      select 1
    {% endcall %}
  {%- else -%}
  {% call statement('main') %}
    {{ get_create_table_as_sql(False, fresh, sql) }}
  {% endcall %}
  {%- endif -%}

  {% set find_partitions %}
    select
        partition_id,
        countIf(table = '{{ fresh.identifier }}') > 0 as is_rebuilt,
        ifNull({{ headrace.in_rebuilt_days('toDateOrNull(any(partition))', later=later_days) }}, false) as is_in_range
    from {{ headrace.every_shard('system.parts') }}
    where active
        and database = '{{ existing_relation.schema }}'
        and table in ('{{ kept.identifier }}', '{{ fresh.identifier }}')
    group by partition_id
    having is_rebuilt or is_in_range
    order by partition_id
  {% endset %}
  {% set partitions = run_query(find_partitions).rows %}

  {% set stray = partitions | rejectattr('is_in_range') | map(attribute='partition_id') | list %}
  {% if stray %}
    {% do adapter.drop_relation(fresh) %}
    {{ exceptions.raise_compiler_error(
      this ~ ": rows outside the rebuilt days " ~ headrace.rebuilt_range() | join(' to ') ~ ", in partitions " ~ stray | join(', ')
      ~ "; a model must yield only days of headrace.in_rebuilt_days(), and be partitioned by a day"
    ) }}
  {% endif %}

  {% if partitions %}
    {% call statement('replace_days') %}
      alter table {{ kept }}{{ on_cluster_clause(kept) if is_distributed }}
      {%- for partition in partitions %}
        {%- if partition['is_rebuilt'] %}
        replace partition id '{{ partition['partition_id'] }}' from {{ fresh }}
        {%- else %}
        drop partition id '{{ partition['partition_id'] }}'
        {%- endif -%}
        {{ ',' if not loop.last }}
      {%- endfor %}
      {{- ' settings allow_replace_partition_from_empty_source = 1' if is_distributed }}
    {% endcall %}
  {% endif %}
  {% do adapter.drop_relation(fresh) %}
{% endmacro %}
