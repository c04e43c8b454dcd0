//! Processes that a process has started.

use std::{fs, io};

/// The children of a process whose command line is of interest; none where there is no /proc.
pub fn children(of: i32, command: impl Fn(&str) -> bool) -> io::Result<Vec<i32>> {
    let parent = of.to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes come and go meanwhile.
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let stat = read("stat");
        let of = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if of == Some(&*parent) && command(&read("cmdline")) {
            found.push(pid);
        }
    }
    Ok(found)
}
