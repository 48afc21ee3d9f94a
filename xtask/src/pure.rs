//! The folder `proto/` of each AMQP transport is pure: bytes in, bytes and events out. It waits for nothing, and
//! knows no socket, clock or task.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Each of these would make the code wait, read a clock, or know a socket or a task.
const IMPURE: &[&str] = &[
    "tokio",
    "async ",
    ".await",
    "crate::io",
    "std::io",
    "std::net",
    "std::thread",
    "Instant",
    "spawn(",
];

#[test]
fn proto_is_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for transport in ["transport-amqp091", "transport-amqp10"] {
        let proto = root.join(transport).join("src/proto");
        let its_own = rust_files(&proto).unwrap();
        assert!(!its_own.is_empty(), "no file in {}", proto.display());
        files.extend(its_own);
    }
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // Tests compare with the client library, which has tokio.
        let code = text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
        for (number, line) in code.enumerate().filter(|(_, line)| !line.trim().starts_with("//")) {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", file.display(), number + 1));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

/// All files of a folder and those below it, without files of tests.
fn rust_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    Ok(files)
}
