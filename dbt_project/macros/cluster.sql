{#-
  What is different where HEADRACE_WAREHOUSE_CLUSTER names a cluster; without it every macro here says what is said on
  one server. Marts are then distributed_incremental (dbt_project.yml): a replicated table <mart>_local on every shard,
  and a Distributed one over them.
-#}
{% macro cluster_name() %}
  {{- return(env_var('HEADRACE_WAREHOUSE_CLUSTER', '')) -}}
{% endmacro %}

{#- Takes the place of dbt-clickhouse's macro of this name: the same engines, replicated. -#}
{% macro engine_clause() %}
  engine = {{ 'Replicated' if headrace.cluster_name() }}{{ config.get('engine', default='MergeTree()') }}
{%- endmacro -%}

{#- Where inserts into a raw table arrive: a materialized view there sees each of them once, on its own shard. -#}
{% macro raw_inserts(table) %}
  {%- set raw = source('raw', table) -%}
  {{- return(raw.incorporate(path={'identifier': raw.identifier ~ '_local'}) if headrace.cluster_name() else raw) -}}
{% endmacro %}

{#- The rows of a table that every shard keeps for itself, without a Distributed table over it. -#}
{% macro every_shard(relation) %}
  {%- set cluster = headrace.cluster_name() -%}
  {{- return("cluster('" ~ cluster ~ "', " ~ relation ~ ')' if cluster else relation) -}}
{% endmacro %}

{#- The setting that makes a table remember the tokens of its inserts. -#}
{% macro deduplication_window() %}
  {%- set kind = 'replicated' if headrace.cluster_name() else 'non_replicated' -%}
  {{- return(kind ~ '_deduplication_window') -}}
{% endmacro %}
