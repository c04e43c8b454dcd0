// What Java Avro says of pairs of schemas. Reads one pair a line from standard input: two texts in base64, candidate and
// previous, with a space between. Answers each with five letters: strict parse of the candidate, lenient parse of the
// candidate, lenient parse of the previous (y, n), candidate reads previous, previous reads candidate (y, n, or - where
// one of them cannot be read).

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.avro.NameValidator;
import org.apache.avro.Schema;
import org.apache.avro.SchemaCompatibility;
import org.apache.avro.SchemaCompatibility.SchemaCompatibilityType;

public class Driver {
    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, false, "UTF-8");
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            if (line.isEmpty()) {
                out.flush();
                continue;
            }
            String[] texts = line.split(" ");
            out.println(verdict(text(texts[0]), text(texts[1])));
        }
        out.flush();
    }

    private static String verdict(String candidate, String previous) {
        Schema strict = parse(candidate, true);
        Schema lenient = parse(candidate, false);
        Schema stored = parse(previous, false);
        // The strictly parsed one is what a registry compares.
        Schema compared = strict != null ? strict : lenient;
        return letter(strict != null) + letter(lenient != null) + letter(stored != null)
            + reads(compared, stored) + reads(stored, compared);
    }

    private static String reads(Schema reader, Schema writer) {
        if (reader == null || writer == null) {
            return "-";
        }
        try {
            return letter(SchemaCompatibility.checkReaderWriterCompatibility(reader, writer).getType()
                == SchemaCompatibilityType.COMPATIBLE);
        } catch (RuntimeException | StackOverflowError e) {
            return "n";
        }
    }

    private static Schema parse(String schema, boolean strict) {
        try {
            Schema.Parser parser = strict ? new Schema.Parser() : new Schema.Parser(NameValidator.NO_VALIDATION);
            return parser.setValidateDefaults(strict).parse(schema);
        } catch (RuntimeException | StackOverflowError e) {
            if (System.getenv("WHY") != null) {
                System.err.println(e + "   <- " + schema);
            }
            return null;
        }
    }

    private static String text(String base64) {
        return new String(Base64.getDecoder().decode(base64), StandardCharsets.UTF_8);
    }

    private static String letter(boolean yes) {
        return yes ? "y" : "n";
    }
}
