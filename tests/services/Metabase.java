// What Metabase's ClickHouse driver asks of a server through JDBC, one statement after the other.
// java -cp clickhouse-jdbc-all.jar Metabase.java URL USER PASSWORD SCHEMA
// Prints one line of tab-separated text for what it found; the first error ends it with a non-zero status.
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;

public class Metabase {
    private static final String[] TYPES = {
        "TABLE", "VIEW", "FOREIGN TABLE", "REMOTE TABLE", "DICTIONARY", "MATERIALIZED VIEW", "MEMORY TABLE", "LOG TABLE"
    };

    private static Connection connection;
    private static String schema;

    public static void main(String[] arguments) throws Exception {
        Properties options = new Properties();
        options.setProperty("user", arguments[1]);
        options.setProperty("password", arguments[2]);
        options.setProperty("ssl", "false");
        options.setProperty("use_server_time_zone_for_dates", "true");
        options.setProperty("remember_last_set_roles", "true");
        options.setProperty("http_connection_provider", "HTTP_URL_CONNECTION");
        options.setProperty("jdbc_ignore_unsupported_values", "true");
        options.setProperty("jdbc_schema_term", "schema");
        options.setProperty("select_sequential_consistency", "true");
        options.setProperty("max_open_connections", "100");
        options.setProperty("custom_http_params", "async_insert=0,wait_end_of_query=0");
        schema = arguments[3];
        Class.forName("com.clickhouse.jdbc.ClickHouseDriver");
        connection = connected(arguments[0], options);
        say("driver", connection.getMetaData().getDriverVersion());
        if (!connection.isValid(15)) {
            throw new IllegalStateException("isValid is false");
        }
        run("SELECT currentUser() AS user, timezone() AS timezone, version() AS version LIMIT 1");
        run("SELECT timezone() AS tz");
        run("WITH s AS (SELECT version() AS ver, splitByChar('.', ver) AS verSplit)"
            + " SELECT s.ver, toInt32(verSplit[1]), toInt32(verSplit[2]) FROM s");
        run("SELECT value='1' FROM system.settings WHERE name='cloud_mode'");
        run("SELECT count() = 0 FROM system.clusters WHERE is_local = 0");
        Map<String, Map<String, String>> tables = tables();
        for (Map.Entry<String, Map<String, String>> table : tables.entrySet()) {
            scan(table.getKey(), table.getValue());
            question(table.getKey(), table.getValue());
        }
        connection.close();
        // a session of a person in another zone
        options.setProperty("clickhouse_setting_session_timezone", "America/New_York");
        connection = connected(arguments[0], options);
        for (Map.Entry<String, Map<String, String>> table : tables.entrySet()) {
            if (table.getKey().startsWith("event_metrics") || table.getKey().endsWith("_current")) {
                question(table.getKey(), table.getValue());
            }
        }
        connection.close();
        say("done", String.valueOf(tables.size()));
    }

    // releases of the driver refuse options that those before ignored; the release of Metabase with it leaves them out
    private static Connection connected(String url, Properties options) throws Exception {
        try {
            return DriverManager.getConnection(url, options);
        } catch (java.sql.SQLException refused) {
            String said = String.valueOf(refused.getCause());
            int start = said.indexOf("unmapped config properties: [");
            if (start < 0) {
                throw refused;
            }
            for (String name : said.substring(said.indexOf('[', start) + 1, said.indexOf(']', start)).split(", ")) {
                options.remove(name);
            }
            return DriverManager.getConnection(url, options);
        }
    }

    private static Map<String, Map<String, String>> tables() throws Exception {
        DatabaseMetaData about = connection.getMetaData();
        try (ResultSet found = about.getSchemas()) {
            while (found.next()) {
                say("schema", found.getString("TABLE_SCHEM"));
            }
        }
        List<String> names = new ArrayList<>();
        try (ResultSet found = about.getTables(null, schema, "%", TYPES)) {
            while (found.next()) {
                names.add(found.getString("TABLE_NAME"));
                say("table", found.getString("TABLE_NAME"), found.getString("TABLE_TYPE"), found.getString("REMARKS"));
            }
        }
        Map<String, Map<String, String>> tables = new LinkedHashMap<>();
        for (String name : names) {
            Map<String, String> columns = new LinkedHashMap<>();
            try (ResultSet found = about.getColumns(null, schema, name, null)) {
                while (found.next()) {
                    String column = found.getString("COLUMN_NAME");
                    columns.put(column, found.getString("TYPE_NAME"));
                    say("column", name, column, found.getString("TYPE_NAME"), found.getString("REMARKS"));
                }
            }
            try (ResultSet found = about.getPrimaryKeys(null, schema, name)) {
                while (found.next()) {
                    say("key", name, found.getString("COLUMN_NAME"), found.getString("KEY_SEQ"));
                }
            }
            try (ResultSet found = about.getIndexInfo(null, schema, name, false, false)) {
                while (found != null && found.next()) {  // 0.8.4 answers null
                }
            }
            if (columns.values().stream().noneMatch(type -> type.contains("AggregateFunction"))) {
                run("SELECT * FROM `" + schema + "`.`" + name + "` WHERE 1 <> 1 LIMIT 0");
            }
            tables.put(name, columns);
        }
        return tables;
    }

    // fingerprint of all columns, then the values of texts for drop-downs, up to 50 a query
    private static void scan(String table, Map<String, String> columns) throws Exception {
        String from = " FROM `" + schema + "`.`" + table + "`";
        List<String> read = new ArrayList<>();
        List<String> values = new ArrayList<>();
        for (Map.Entry<String, String> one : columns.entrySet()) {
            String column = "`" + schema + "`.`" + table + "`.`" + one.getKey() + "`";
            boolean text = one.getValue().contains("String");
            if (one.getValue().contains("AggregateFunction")) {
                continue;  // states, which the connection hides from scans
            }
            read.add(text ? "substring(toString(" + column + "), 1, 1234) AS `" + one.getKey() + "`"
                : column + " AS `" + one.getKey() + "`");
            if (text && values.size() < 50) {
                values.add("SELECT * FROM (SELECT " + values.size() + " AS field_idx, CAST(`" + one.getKey()
                    + "` AS Nullable(TEXT)) AS value_out" + from + " GROUP BY `" + one.getKey() + "` LIMIT 1000)");
            }
        }
        say("rows", table, String.valueOf(run("SELECT " + String.join(", ", read) + from + " LIMIT 10000")));
        if (!values.isEmpty()) {
            run(String.join(" UNION ALL ", values));
        }
    }

    // what questions built in the editor become: of each kind of column the first, numbers all at once
    private static void question(String table, Map<String, String> columns) throws Exception {
        String from = " FROM `" + schema + "`.`" + table + "`";
        String remark = "-- Metabase:: userID: 1 queryType: MBQL queryHash: 0a1b\n";
        run(remark + "SELECT count(*) AS `count`" + from);
        List<String> numbers = new ArrayList<>();
        boolean times = false;
        boolean days = false;
        boolean texts = false;
        for (Map.Entry<String, String> one : columns.entrySet()) {
            String column = "`" + one.getKey() + "`";
            String type = one.getValue();
            if (type.contains("Array") || type.contains("Map") || type.contains("AggregateFunction")) {
                continue;
            }
            if (type.contains("DateTime") && !times) {
                times = true;
                for (String unit : new String[] {"toStartOfMinute", "toStartOfHour", "toStartOfDay", "toMonday",
                    "toStartOfMonth", "toStartOfQuarter", "toStartOfYear", "toDayOfWeek", "toHour"}) {
                    run(remark + "SELECT " + unit + "(toTimeZone(" + column + ", 'America/New_York')) AS w, count(*) AS n"
                        + from + " GROUP BY w ORDER BY w ASC LIMIT 10000");
                }
                run(remark + "SELECT count(*)" + from + " WHERE " + column
                    + " >= toStartOfDay(now64(9, 'UTC') + INTERVAL -30 day) AND " + column
                    + " < parseDateTime64BestEffort('2030-01-01 00:00:00.000', 3, 'UTC')");
                run(remark + "SELECT CAST(" + column + " AS Nullable(Date32)) AS d, max(age('day', " + column
                    + ", now64(9, 'UTC')))" + from + " GROUP BY d ORDER BY d LIMIT 2000");
            } else if (type.contains("Date") && !type.contains("DateTime") && !days) {
                days = true;
                run(remark + "SELECT toStartOfMonth(" + column + ") AS m, count(*)" + from + " WHERE " + column
                    + " BETWEEN toDate('2020-01-01') AND CAST(now() AS Date32) GROUP BY m ORDER BY m");
                prepared(remark + "SELECT count(*)" + from + " WHERE " + column + " >= toDate(?)", "2020-01-01");
            } else if (type.matches(".*(Int|Float|Decimal).*")) {
                for (String about : new String[] {"sum", "avg", "min", "max", "median", "quantile(0.9)", "stddevPop"}) {
                    numbers.add(about + "(" + column + ")");
                }
            } else if (type.contains("String") && !texts) {
                texts = true;
                run(remark + "SELECT " + column + " AS v, count(*) AS n" + from + " WHERE positionCaseInsensitiveUTF8("
                    + column + ", 'a') > 0 GROUP BY v ORDER BY n DESC, v ASC LIMIT 2000");
                prepared(remark + "SELECT count(*)" + from + " WHERE " + column + " = ?", "it's \\ one");
            }
        }
        if (!numbers.isEmpty()) {
            run(remark + "SELECT " + String.join(", ", numbers) + from);
        }
    }

    private static int run(String sql) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(60);
            try (ResultSet found = statement.executeQuery(sql)) {
                return read(found);
            }
        } catch (Exception failure) {
            throw new IllegalStateException(sql, failure);
        }
    }

    private static void prepared(String sql, String value) throws Exception {
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setObject(1, value);
            try (ResultSet found = statement.executeQuery()) {
                read(found);
            }
        } catch (Exception failure) {
            throw new IllegalStateException(sql, failure);
        }
    }

    private static int read(ResultSet found) throws Exception {
        ResultSetMetaData about = found.getMetaData();
        for (int index = 1; index <= about.getColumnCount(); index++) {
            about.getColumnTypeName(index);
            about.getColumnLabel(index);
        }
        int rows = 0;
        while (found.next()) {
            rows++;
            for (int index = 1; index <= about.getColumnCount(); index++) {
                found.getObject(index);
            }
        }
        return rows;
    }

    private static void say(String... words) {
        StringBuilder line = new StringBuilder();
        for (String word : words) {
            line.append(line.length() > 0 ? "\t" : "").append(word == null ? "" : word.replaceAll("[\\t\\n]", " "));
        }
        System.out.println(line);
    }
}
