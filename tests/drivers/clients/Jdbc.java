import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * PostgreSQL's JDBC driver, as an application uses it: java Jdbc.java CONNECTIONS WORD; where and who stand in PGHOST and the like. Opens
 * so many connections at once, reads the word over each, and only then lets them go.
 */
public class Jdbc {
    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[0]);
        String word = arguments[1];
        ExecutorService threads = Executors.newFixedThreadPool(count);
        List<Future<Connection>> opening = new ArrayList<>();
        for (int number = 0; number < count; number++)
            opening.add(threads.submit(Jdbc::connect));
        threads.shutdown();
        List<Connection> opened = new ArrayList<>();
        for (Future<Connection> each : opening) {
            try {
                opened.add(each.get());
            } catch (ExecutionException failed) {
                System.err.println(failed.getCause());
                System.exit(1);
            }
        }
        for (Connection connection : opened)
            try (Statement statement = connection.createStatement();
                    ResultSet rows = statement.executeQuery("select '" + word + "'")) {
                if (!rows.next() || !rows.getString(1).equals(word))
                    throw new IllegalStateException("the database answered something else");
            }
        for (Connection connection : opened)
            connection.close();
    }

    static Connection connect() throws Exception {
        Properties given = new Properties();
        given.setProperty("user", System.getenv("PGUSER"));
        given.setProperty("password", System.getenv("PGPASSWORD"));
        given.setProperty("ApplicationName", System.getenv("PGAPPNAME"));
        given.setProperty("options", System.getenv("PGOPTIONS"));
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        return DriverManager.getConnection(url, given);
    }
}
