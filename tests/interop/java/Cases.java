import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** Counts what holds; a failure is told, and the other cases go on. */
final class Cases {
    static final int DEADLINE_S = 30;
    static int passed;
    static int failed;

    interface Case {
        void run() throws Exception;
    }

    static void run(String name, Case body) {
        try {
            body.run();
            passed++;
        } catch (Exception | AssertionError error) {
            failed++;
            System.out.println("FAILED " + name + ": " + error);
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void same(Object found, Object wanted) {
        check(wanted.equals(found), found + " instead of " + wanted);
    }

    static <T> T get(Future<T> future) throws Exception {
        return future.get(DEADLINE_S, TimeUnit.SECONDS);
    }

    /** The future must fail with an error of this class, not of one derived from it. */
    static void fails(String name, Class<?> kind, Case future) {
        run(name, () -> {
            Object found = "nothing";
            try {
                future.run();
            } catch (ExecutionException error) {
                found = error.getCause().getClass();
            }
            same(found, kind);
        });
    }

    private Cases() {}
}
