//! Takes the text of the body out of serde's errors, so that no error or log shows it.

/// What serde says of a value that does not fit, without the value.
///
/// Bodies may hold what no log should, so only words are let through that are not the body's: those
/// of serde and of the type that was asked for.
pub(super) fn without_the_body(said: &str) -> String {
    let (said, place) = match said.rfind(" at line ") {
        Some(at) => said.split_at(at),
        None => (said, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let place = place
        .strip_prefix(" at line ")
        .and_then(|place| place.split_once(" column "))
        .filter(|(line, column)| digits(line) && digits(column))
        .map(|(line, column)| format!(" at line {line} column {column}"))
        .unwrap_or_default();
    // What the type expects comes last; a body that holds the same words comes before.
    let expected = |said: &str| said.rfind(", expected ").map_or("", |at| &said[at..]).to_owned();
    let known = ["missing field `", "duplicate field `", "invalid length "];
    let quoting = [
        ("invalid type: ", "a value of another type"),
        ("invalid value: ", "a value out of range"),
        ("unknown variant `", "an unknown variant"),
        ("unknown field `", "an unknown field"),
    ];
    let reason = if SYNTAX.contains(&said) || known.iter().any(|start| said.starts_with(start)) {
        said.to_owned()
    } else if let Some((_, what)) = BINARY.iter().find(|(start, _)| said.starts_with(start)) {
        (*what).to_owned()
    } else if let Some((_, what)) = quoting.iter().find(|(start, _)| said.starts_with(start)) {
        format!("{what}{}", expected(said))
    } else {
        "the value does not fit the type".to_owned()
    };
    reason + &place
}

/// All that `serde_json` says of a text that is no JSON.
const SYNTAX: &[&str] = &[
    "EOF while parsing a list",
    "EOF while parsing an object",
    "EOF while parsing a string",
    "EOF while parsing a value",
    "expected `:`",
    "expected `,` or `]`",
    "expected `,` or `}`",
    "expected ident",
    "expected value",
    "expected `\"`",
    "invalid escape",
    "invalid number",
    "number out of range",
    "invalid unicode code point",
    "control character (\\u0000-\\u001F) found while parsing a string",
    "key must be a string",
    "lone leading surrogate in hex escape",
    "trailing comma",
    "trailing characters",
    "unexpected end of hex escape",
    "recursion limit exceeded",
];

/// How what `rmp_serde`, `postcard` and `bincode` say begins, and what it means. What follows may be
/// bytes of the body.
const BINARY: &[(&str, &str)] = &[
    ("IO error while reading ", TOO_SHORT),
    ("Hit the end of buffer", TOO_SHORT),
    ("UnexpectedEnd", TOO_SHORT),
    ("string found to be invalid utf8", NO_UTF8),
    ("Tried to parse invalid utf-8", NO_UTF8),
    ("Utf8 {", NO_UTF8),
    ("wrong msgpack marker", "a value of another type"),
    ("array had incorrect length", "a list or map of another length"),
    ("LimitExceeded", "it claims more bytes than it may have"),
    ("This is a feature that PostCard will never implement", NO_NAMES),
    ("Serde(AnyNotSupported)", NO_NAMES),
    ("Serde(IgnoredAnyNotSupported)", NO_NAMES),
    ("Serde(IdentifierNotSupported)", NO_NAMES),
];

const TOO_SHORT: &str = "it ends too early";
const NO_UTF8: &str = "a text is not UTF-8";
const NO_NAMES: &str =
    "the type can only be read from an encoding that names what it holds, such as JSON";
