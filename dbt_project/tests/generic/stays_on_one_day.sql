{#- No `key` of the refreshed days is seen on two days; the days beside the refreshed ones are read, too. -#}
{% test stays_on_one_day(model, key, day) %}

select
    {{ key }},
    arraySort(groupUniqArray({{ day }})) as days
from {{ model }}
where {{ headrace.in_rebuilt_days(day, back=1, ahead=1) }}
group by {{ key }}
having min({{ day }}) != max({{ day }})

{% endtest %}
