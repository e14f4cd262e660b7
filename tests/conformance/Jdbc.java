import java.io.*;
import java.lang.reflect.*;
import java.sql.*;
import java.util.*;
import org.postgresql.*;
import org.postgresql.copy.*;
import org.postgresql.largeobject.*;

/**
 * What applications and tools ask of PostgreSQL's JDBC driver: all metadata, result sets that can be changed, generated keys,
 * batches, cursors, COPY, large objects, procedures, savepoints. Prints what each part gave, a line each. Arguments: the URL;
 * user and password are in PGUSER and PGPASSWORD. Expects objects.sql in the database.
 */
public class Jdbc {
    static final String[] SCHEMAS = {null, "shop", "%", "Odd Schema", "information_schema", "pg_catalog", ""};
    static final String[] TABLES = {null, "customers", "orders", "parts", "events", "names", "Odd Table", "%", "c\\_%", "pg_class"};

    interface Part {
        Object run(Connection connection) throws Exception;
    }

    static String url;

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
        part("metadata", "", Jdbc::metadata);
        for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
            String options = "preferQueryMode=" + mode + "&prepareThreshold=2";
            part("statements", options, Jdbc::statements);
            part("changed", options, Jdbc::changed);
            part("described", options, Jdbc::described);
            part("keys", options, Jdbc::keys);
            part("called", options, Jdbc::called);
            part("transactions", options + "&autosave=always", Jdbc::transactions);
            part("fetched", options, Jdbc::fetched);
        }
        for (String options : new String[] {"", "reWriteBatchedInserts=true"})
            part("batches", options, Jdbc::batches);
        part("copied", "", Jdbc::copied);
        part("large", "", Jdbc::large);
        part("session", "currentSchema=shop,public&ApplicationName=other&options=-c%20statement_timeout=60000", Jdbc::session);
        part("read only", "readOnly=true&readOnlyMode=always", Jdbc::fetched);
    }

    static void part(String name, String options, Part part) {
        Properties login = new Properties();
        login.setProperty("user", System.getenv("PGUSER"));
        login.setProperty("password", System.getenv("PGPASSWORD"));
        try (Connection connection = DriverManager.getConnection(url + "?" + options, login)) {
            System.out.println(name + " (" + options + "): " + part.run(connection));
        } catch (Exception error) {
            System.out.println(name + " (" + options + ") failed: " + error);
        }
    }

    /** Calls every method of the metadata that gives rows, with each schema and table; and every method without arguments. */
    static Object metadata(Connection connection) throws Exception {
        DatabaseMetaData metadata = connection.getMetaData();
        Method[] methods = DatabaseMetaData.class.getMethods();
        Arrays.sort(methods, Comparator.comparing(Method::toString));
        int answers = 0;
        for (Method method : methods) {
            if (Modifier.isStatic(method.getModifiers()))
                continue;
            boolean rows = method.getReturnType() == ResultSet.class && method.getParameterCount() > 1;
            for (String schema : rows ? SCHEMAS : new String[] {null})
                for (String table : rows ? TABLES : new String[] {null}) {
                    for (int variant = 0; variant < 3; variant++) {
                        Object[] values = filled(method, schema, table, variant);
                        System.out.println("  " + method.getName() + Arrays.deepToString(values) + ": " + call(metadata, method, values));
                        answers++;
                        if (!varies(method))
                            break;
                    }
                }
        }
        return answers + " answers";
    }

    static boolean varies(Method method) {
        return List.of("getTables", "getColumns", "getCrossReference", "getIndexInfo", "getUDTs").contains(method.getName());
    }

    /** Arguments: the strings are the catalog, then a schema, then a table, then a column (or both again of the other side). */
    static Object[] filled(Method method, String schema, String table, int variant) {
        List<Object> values = new ArrayList<>();
        int strings = 0;
        for (Class<?> type : method.getParameterTypes()) {
            if (type == String.class) {
                String[] of = {variant == 1 ? "" : null, schema, table, variant == 1 ? "%" : variant == 2 ? "id" : null, schema, "orders"};
                values.add(method.getParameterCount() < 2 ? schema : of[strings++]);
            } else if (type == String[].class) {
                values.add(variant == 0 ? null : variant == 1 ? new String[] {"TABLE", "VIEW", "MATERIALIZED VIEW", "PARTITIONED TABLE"}
                    : new String[] {"INDEX", "SEQUENCE", "TYPE", "SYSTEM TABLE", "SYSTEM VIEW", "FOREIGN TABLE", "TEMPORARY TABLE"});
            } else if (type == int[].class) {
                values.add(variant == 0 ? null : new int[] {Types.STRUCT, Types.DISTINCT});
            } else if (type == int.class) {
                values.add(DatabaseMetaData.bestRowSession);
            } else if (type == boolean.class) {
                values.add(variant == 1);
            } else {
                values.add(null);
            }
        }
        return values.toArray();
    }

    static String call(DatabaseMetaData metadata, Method method, Object[] values) throws Exception {
        try {
            Object answer = method.invoke(metadata, values);
            return answer instanceof ResultSet ? rows((ResultSet) answer) + " rows" : answer instanceof Connection ? "" : String.valueOf(answer)
                .replaceAll("localhost:\\d+|127.0.0.1:\\d+", "HOST");
        } catch (InvocationTargetException error) {
            return error.getCause().toString().split("\n")[0];
        } catch (IllegalArgumentException error) {
            return "not asked";
        }
    }

    static int rows(ResultSet set) throws SQLException {
        int count = 0;
        while (set.next())
            count++;
        set.close();
        return count;
    }

    static int rows(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return rows(statement.executeQuery(sql));
        }
    }

    static Object statements(Connection connection) throws Exception {
        int count = 0;
        for (int again = 0; again < 4; again++)
            try (PreparedStatement statement = connection.prepareStatement(
                    "select c.name, o.quantity from shop.customers c join shop.orders o on o.customer_id = c.id where c.id = ? and o.placed < ?"
                    + " order by {fn lcase(c.name)}, o.id")) {
                statement.setLong(1, 1 + again);
                statement.setTimestamp(2, Timestamp.valueOf("2100-01-01 00:00:00"));
                count += rows(statement.executeQuery());
            }
        try (PreparedStatement statement = connection.prepareStatement("select id from shop.customers where tags && ? or feeling = ?::shop.mood or id = any (?)")) {
            statement.setArray(1, connection.createArrayOf("text", new String[] {"a", "b"}));
            statement.setString(2, "ok");
            statement.setArray(3, connection.createArrayOf("int8", new Long[] {1L, 2L}));
            count += rows(statement.executeQuery());
            for (int i = 1; i <= statement.getParameterMetaData().getParameterCount(); i++)
                count += statement.getParameterMetaData().getParameterType(i);
        }
        try (Statement statement = connection.createStatement()) {
            boolean more = statement.execute("select id from shop.products; update shop.products set stock = stock + 1 where id = 1; select name from shop.names limit 3");
            while (more || statement.getUpdateCount() != -1) {
                count += more ? rows(statement.getResultSet()) : statement.getUpdateCount();
                more = statement.getMoreResults();
            }
            statement.setMaxRows(5);
            count += rows(statement.executeQuery("select {fn now()}, {d '2026-01-01'}, {ts '2026-01-01 00:00:00'} from {oj shop.orders o left outer join shop.products p on o.product_id = p.id}"));
            count += rows(statement.executeQuery("select name from shop.customers where name like 'c!_%' {escape '!'}"));
        }
        return count;
    }

    static Object changed(Connection connection) throws Exception {
        String[] queries = {"select id, code, price, stock from shop.products", "select * from shop.products where id < 3",
            "select \"Id\", \"a \"\"b\", \"select\" from \"Odd Schema\".\"Odd Table\"", "select p.id, p.stock, p.code, p.price from shop.products as p order by p.id"};
        StringBuilder said = new StringBuilder();
        for (String query : queries)
            try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_SENSITIVE, ResultSet.CONCUR_UPDATABLE);
                 ResultSet set = statement.executeQuery(query)) {
                if (set.next()) {
                    set.updateInt(set.getMetaData().getColumnCount(), 7);
                    set.updateRow();
                    set.refreshRow();
                }
                set.moveToInsertRow();
                set.updateInt(1, 90);
                set.updateString(2, "new");
                if (set.getMetaData().getColumnCount() > 3)
                    set.updateObject(query.startsWith("select p.") ? 4 : 3, new java.math.BigDecimal(3));
                set.insertRow();
                set.last();
                set.deleteRow();
                said.append(" ok");
            } catch (SQLException error) {
                said.append(" ").append(error.getMessage().split("\n")[0]);
                try (Statement statement = connection.createStatement()) {
                    statement.execute("delete from shop.products where id = 90");
                }
            }
        return said;
    }

    static Object described(Connection connection) throws Exception {
        StringBuilder said = new StringBuilder();
        for (String query : new String[] {"select * from shop.customers", "select o.*, p.code as c, 1 + 1 as two from shop.orders o join shop.products p on p.id = o.product_id",
                "select * from shop.names", "select * from shop.events", "select count(*), max(name) from shop.customers"})
            try (PreparedStatement statement = connection.prepareStatement(query)) {
                ResultSetMetaData columns = statement.getMetaData();
                for (int i = 1; i <= columns.getColumnCount(); i++)
                    said.append(' ').append(((PGResultSetMetaData) columns).getBaseSchemaName(i)).append('.')
                        .append(((PGResultSetMetaData) columns).getBaseTableName(i)).append('.').append(((PGResultSetMetaData) columns).getBaseColumnName(i))
                        .append(columns.isNullable(i)).append(columns.isAutoIncrement(i)).append(columns.getColumnTypeName(i));
                try (ResultSet set = statement.executeQuery()) {
                    said.append(set.getMetaData().isAutoIncrement(1)).append(set.getMetaData().getTableName(1));
                    while (set.next())
                        for (int i = 1; i <= columns.getColumnCount(); i++)
                            set.getObject(i);
                }
            }
        return said;
    }

    static Object keys(Connection connection) throws Exception {
        int count = 0;
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("insert into shop.products (code, price) values ('k1', 1), ('k2', 2)", Statement.RETURN_GENERATED_KEYS);
            count += rows(statement.getGeneratedKeys());
            statement.executeUpdate("update shop.products set stock = 5 where code like 'k%'", new String[] {"id", "stock"});
            count += rows(statement.getGeneratedKeys());
            statement.executeUpdate("delete from shop.products where code = 'k2'", new String[] {"id"});
            count += rows(statement.getGeneratedKeys());
            statement.executeUpdate("with gone as (delete from shop.products where code = 'k1' returning id) insert into shop.base (a) select id from gone", Statement.RETURN_GENERATED_KEYS);
            count += rows(statement.getGeneratedKeys());
        }
        try (PreparedStatement statement = connection.prepareStatement("insert into shop.products (code, price) values (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 5; i++) {
                statement.setString(1, "b" + i);
                statement.setBigDecimal(2, new java.math.BigDecimal(i + 1));
                statement.addBatch();
            }
            count += statement.executeBatch().length + rows(statement.getGeneratedKeys());
        }
        connection.rollback();
        return count;
    }

    static Object called(Connection connection) throws Exception {
        StringBuilder said = new StringBuilder();
        for (String call : new String[] {"{? = call shop.total(?)}", "{call shop.pair(?, ?)}", "call shop.restock(?, ?)", "{call shop.restock(?, ?)}"})
            try (CallableStatement statement = connection.prepareCall(call)) {
                if (call.startsWith("{?")) {
                    statement.registerOutParameter(1, Types.BIGINT);
                    statement.setLong(2, 3);
                } else if (call.contains("pair")) {
                    statement.registerOutParameter(1, Types.INTEGER);
                    statement.registerOutParameter(2, Types.INTEGER);
                } else {
                    statement.setInt(1, 1);
                    statement.setInt(2, 0);
                    statement.registerOutParameter(2, Types.INTEGER);
                }
                statement.execute();
                said.append(' ').append(call.contains("total") ? statement.getLong(1) : statement.getInt(2));
            } catch (SQLException error) {
                said.append(' ').append(error.getMessage().split("\n")[0]);
            }
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement(); ResultSet cursors = statement.executeQuery("select shop.cursors()")) {
            while (cursors.next())
                said.append(' ').append(rows((ResultSet) cursors.getObject(1)));
        }
        connection.rollback();
        return said;
    }

    static Object transactions(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        connection.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        int count = 0;
        try (Statement statement = connection.createStatement()) {
            statement.execute("create temp table mine (a integer primary key, b text) on commit drop");
            statement.execute("insert into mine values (1, 'one')");
            Savepoint savepoint = connection.setSavepoint("Odd \"name");
            statement.execute("alter table mine add c integer default 3");
            count += rows(statement.executeQuery("select * from mine"));
            connection.rollback(savepoint);
            count += rows(statement.executeQuery("select * from mine"));
            connection.releaseSavepoint(connection.setSavepoint());
            try {
                statement.execute("select nothing from mine");
            } catch (SQLException expected) {
                count++;
            }
            count += rows(statement.executeQuery("select b from mine where a = 1 for update"));
        }
        connection.commit();
        return count;
    }

    static Object fetched(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        int count = 0;
        try (PreparedStatement statement = connection.prepareStatement("select id, name from shop.customers where id > ? order by id")) {
            statement.setFetchSize(20);
            statement.setLong(1, 10);
            count += rows(statement.executeQuery());
        }
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_READ_ONLY, ResultSet.HOLD_CURSORS_OVER_COMMIT)) {
            statement.setFetchSize(20);
            count += rows(statement.executeQuery("select * from shop.orders"));
            statement.execute("declare mine scroll cursor for select code from shop.products");
            count += rows(statement.executeQuery("fetch forward 2 from mine"));
        }
        connection.commit();
        return count;
    }

    static Object batches(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        int count = 0;
        for (String sql : new String[] {"insert into shop.base (a, b) values (?, ?)", "insert into shop.base values (?, ?) on conflict do nothing",
                "update shop.base set a = ? where b = ?", "delete from shop.base where a = ? and b = ?"})
            try (PreparedStatement statement = connection.prepareStatement(sql)) {
                for (int i = 0; i < 300; i++) {
                    statement.setInt(1, i);
                    statement.setString(2, "b" + i);
                    statement.addBatch();
                }
                count += statement.executeBatch().length;
            }
        try (Statement statement = connection.createStatement()) {
            statement.addBatch("insert into shop.scratch values (1)");
            statement.addBatch("update shop.scratch set x = 2; delete from shop.scratch");
            count += statement.executeBatch().length;
        }
        connection.rollback();
        return count;
    }

    static Object copied(Connection connection) throws Exception {
        CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
        long count = copy.copyIn("copy shop.base (a, b) from stdin with (format csv)", new StringReader("1,one\n2,two\n"));
        StringWriter out = new StringWriter();
        count += copy.copyOut("copy (select a, b from shop.base order by a) to stdout", out);
        count += copy.copyOut("copy shop.products (code) to stdout", out);
        count += rows(connection, "delete from shop.base returning a");
        return count;
    }

    static Object large(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        LargeObjectManager objects = connection.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = objects.createLO();
        LargeObject object = objects.open(oid);
        object.write("large".getBytes());
        object.seek(0);
        int read = object.read(10).length + object.tell();
        object.truncate(2);
        object.close();
        objects.delete(oid);
        connection.commit();
        return read;
    }

    static Object session(Connection connection) throws Exception {
        StringBuilder said = new StringBuilder(connection.getSchema() + connection.isValid(5) + connection.getTransactionIsolation());
        connection.setSchema("public");
        connection.setClientInfo("ApplicationName", "third");
        said.append(connection.getClientInfo("ApplicationName")).append(connection.getCatalog());
        connection.setSchema("shop");
        connection.getTypeMap();
        said.append(rows(connection, "select code from products"));
        return said;
    }
}
