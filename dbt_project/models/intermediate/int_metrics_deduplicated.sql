{#- of any day; the marts take the days of their build from the same macro -#}
{{ metrics_once() }}
