//! The rules, each with its code and its remedy.

use std::fmt;

use serde::{Serialize, Serializer};

/// Declares the rules: variant, code, whether it is a risk only, remedy.
macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident, $code:literal, $remedy:literal;)*) => {
        /// A rule that a schema, or a pair of them, can break. Codes are stable: scripts may match on them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule { $($(#[$doc])* $variant,)* }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code, upper case: those that Java's checker knows have its names.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// What to do, in one sentence.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

rules! {
    // Between reader and writer, as Java's checker.
    /// Two named types with other names, and no alias.
    NameMismatch, "NAME_MISMATCH", "Keep the name, or give the reader's type the writer's full name as an alias.";
    /// Two fixed types of other sizes.
    FixedSizeMismatch, "FIXED_SIZE_MISMATCH", "Keep the size: add a field of the new size beside the old one.";
    /// The writer has symbols that the reader has not, and the reader's enum has no default.
    MissingEnumSymbols, "MISSING_ENUM_SYMBOLS",
        "Keep the symbols, and give the enum a default symbol before any is added.";
    /// The reader has a field that the writer has not, and no default for it.
    ReaderFieldMissingDefaultValue, "READER_FIELD_MISSING_DEFAULT_VALUE",
        "Give the field a default; one that has none can be neither added nor removed.";
    /// Two types of which none can be read as the other.
    TypeMismatch, "TYPE_MISMATCH", "Keep the type: add a field of the new type, with a default, beside the old one.";
    /// The reader's union has no branch for what the writer may write.
    MissingUnionBranch, "MISSING_UNION_BRANCH",
        "Keep the branch, or add it to every reader's union before anybody writes it.";
    /// A reader's field fits more than one of the writer's fields, by name and aliases.
    AmbiguousField, "AMBIGUOUS_FIELD", "Remove the aliases that fit a second field of the writer.";

    // A schema by itself.
    /// Not JSON.
    InvalidJson, "INVALID_JSON", "Write the schema as one JSON value.";
    /// More bytes, or more work, than a schema may be.
    TooLarge, "TOO_LARGE", "Split the schema.";
    /// Nested deeper than is read.
    TooDeep, "TOO_DEEP", "Name inner types and refer to them, or flatten the schema.";
    /// Not a schema: a part is missing or of a wrong kind.
    InvalidSchema, "INVALID_SCHEMA", "Write the part as the Avro specification says.";
    /// Not a name.
    InvalidName, "INVALID_NAME", "Use letters, digits and _ only, not beginning with a digit.";
    /// A name that nothing defines.
    UndefinedName, "UNDEFINED_NAME",
        "Define the type in this schema, correct its namespace, or hand in the schema that defines it.";
    /// One name, two definitions that differ.
    RedefinedName, "REDEFINED_NAME", "Define the type once and refer to it by name.";
    /// Two fields of one name.
    DuplicateField, "DUPLICATE_FIELD", "Rename or remove one of the fields.";
    /// An enum's symbols or default do not hold together.
    InvalidEnum, "INVALID_ENUM", "Name every symbol once, and let the default be one of them.";
    /// A union in a union, or two branches of one type.
    InvalidUnion, "INVALID_UNION", "Let every type stand in the union once, without inner unions.";
    /// A default that is not a value of its field's type.
    InvalidDefault, "INVALID_DEFAULT", "Write a default that is a value of the field's type.";
    /// A version registered before cannot be read at all.
    InvalidStoredVersion, "INVALID_STORED_VERSION", "Correct or remove that version, nothing can be compared with it.";

    // Risks of a pair: the registry lets it through.
    /// A decimal of other precision or scale.
    DecimalChanged, "DECIMAL_CHANGED", "Keep precision and scale: add a field for the new ones.";
    /// Another logical type on the same data.
    LogicalTypeChanged, "LOGICAL_TYPE_CHANGED", "Keep unit and kind: add a field for the new ones.";
    /// The reader has a logical type where the writer has none.
    LogicalTypeAdded, "LOGICAL_TYPE_ADDED", "Leave the old field plain and add one with the logical type.";
    /// The writer has a logical type where the reader has none.
    LogicalTypeDropped, "LOGICAL_TYPE_DROPPED", "Keep the logical type.";
    /// A field was renamed by an alias.
    FieldRenamedByAlias, "FIELD_RENAMED_BY_ALIAS",
        "Keep the name: other readers, and decoders that ignore aliases, lose the field.";
    /// A field went and one of the same type came, both with defaults: a rename that loses data silently.
    FieldReplaced, "FIELD_REPLACED", "If this is a rename keep the old name; if not, remove the old field in a later version.";
    /// Bytes read as a string, or a string as bytes.
    BytesAndString, "BYTES_AND_STRING", "Keep the type: bytes that are no UTF-8 fail in Rust and Python.";
    /// Symbols that the reader does not know turn into its default.
    EnumSymbolLost, "ENUM_SYMBOL_LOST", "Keep the symbol, or be sure that its readers may see the default instead.";
    /// The same name in another namespace.
    NamespaceMoved, "NAMESPACE_MOVED", "Keep the namespace, or add the old full name as an alias.";
    /// A number read as a wider one that does not hold all its values.
    PrecisionLost, "PRECISION_LOST", "Keep the type, or read it as a double, or as a string.";

    /// A number read as a wider one: all its values fit, and yet some decoders refuse it.
    NumberWidened, "NUMBER_WIDENED", "Keep the type: decoders without a reader's schema, as in Rust, refuse the old data.";
    /// A union on one side, one of its branches alone on the other.
    UnionChanged, "UNION_CHANGED", "Keep the union as it is: decoders without a reader's schema, as in Rust, refuse the other.";

    // Risks of a candidate by itself.
    /// The default is a value of a later branch of the union.
    DefaultFromLaterBranch, "DEFAULT_FROM_LATER_BRANCH", "Put the default's type first in the union.";
    /// A default of the right JSON type that cannot be encoded.
    DefaultNotEncodable, "DEFAULT_NOT_ENCODABLE",
        "Write a default that can be encoded: a symbol of the enum, a text of the fixed's length.";
    /// A type is used before its definition.
    UsedBeforeDefined, "USED_BEFORE_DEFINED", "Define the type where it is first used, and refer to it by name afterwards.";
    /// An alias is the name or an alias of a sibling.
    AliasClash, "ALIAS_CLASH", "Remove the alias, or rename the sibling.";
    /// A name with letters beyond ASCII.
    NameNotPortable, "NAME_NOT_PORTABLE", "Use A to Z, a to z, 0 to 9 and _ only.";
    /// A known logical type on a type that it does not fit: it is ignored.
    LogicalTypeIgnored, "LOGICAL_TYPE_IGNORED", "Put the logical type on a type that it fits, or remove it.";
    /// Comments, which only Java's reader passes over.
    Comments, "COMMENTS", "Move comments to \"doc\".";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}
