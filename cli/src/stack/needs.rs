//! What the machine must have: Java, Maven, room. One clear sentence for each that it lacks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::Command;

const JAVA: u32 = 17;
const MAVEN: (u32, u32) = (3, 6);

/// The Java to run the broker and the registry with: `$JAVA_HOME/bin/java`, else `java` of the path; 17 or newer.
pub async fn java() -> Result<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").filter(|h| !h.is_empty());
    let java = home.map_or_else(|| PathBuf::from("java"), |home| Path::new(&home).join("bin/java"));
    let said = output_of(&java, "-version").await.map_err(|e| {
        anyhow!(
            "Java {JAVA} or newer is needed for the broker and the schema registry, and {} cannot be run ({e}): install \
             a JRE (Debian: openjdk-17-jre-headless) or set JAVA_HOME",
            java.display()
        )
    })?;
    let major = java_major(&said).ok_or_else(|| anyhow!("{} -version says no version", java.display()))?;
    if major < JAVA {
        bail!(
            "Java {JAVA} or newer is needed, {} is {major}: install a newer one or set JAVA_HOME to it",
            java.display()
        );
    }
    Ok(java)
}

/// Maven, needed only where something must be fetched.
pub async fn maven() -> Result<()> {
    let said = output_of(Path::new("mvn"), "--version").await.map_err(|e| {
        anyhow!(
            "Maven is needed to fetch the broker, the registry and the model, and mvn cannot be run ({e}): install it \
             (Debian: maven)"
        )
    })?;
    let found = maven_version(&said).ok_or_else(|| {
        anyhow!(
            "mvn --version says no version but: {}",
            said.lines().next().unwrap_or_default()
        )
    })?;
    if found < MAVEN {
        bail!(
            "Maven {}.{} or newer is needed, mvn is {}.{}: install a newer one",
            MAVEN.0,
            MAVEN.1,
            found.0,
            found.1
        );
    }
    Ok(())
}

/// Room on the disk that holds `folder`, which exists.
pub fn space(folder: &Path, mib: u64, what_for: &str, way_out: &str) -> Result<()> {
    let stat =
        rustix::fs::statvfs(folder).with_context(|| format!("cannot ask for the room in {}", folder.display()))?;
    let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free_mib < mib {
        bail!(
            "the disk of {} has {free_mib} MiB free, {what_for} need {mib} MiB: free some, or {way_out}",
            folder.display()
        );
    }
    Ok(())
}

async fn output_of(program: &Path, flag: &str) -> std::io::Result<String> {
    let output = Command::new(program)
        .arg(flag)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() {
        Ok(said)
    } else {
        Err(std::io::Error::other(said.trim().to_owned()))
    }
}

/// | text | major |
/// |---|---|
/// | `openjdk version "17.0.15" 2025-04-15` | 17 |
/// | `java version "1.8.0_401"` | 8 |
/// | `openjdk version "25" 2025-09-16` | 25 |
fn java_major(said: &str) -> Option<u32> {
    let version = said.split_once("version \"")?.1;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next()?.ok()?, numbers.next()) {
        (1, Some(Ok(major))) => Some(major),
        (major, _) => Some(major),
    }
}

fn maven_version(said: &str) -> Option<(u32, u32)> {
    let version = said.split_once("Apache Maven ")?.1;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(java_major("java version \"1.8.0_401\""), Some(8));
        assert_eq!(java_major("openjdk version \"25\" 2025-09-16"), Some(25));
        assert_eq!(java_major("Error: could not find libjava.so"), None);
        assert_eq!(
            maven_version("\u{1b}[1mApache Maven 3.8.7\u{1b}[m\nMaven home"),
            Some((3, 8))
        );
        assert_eq!(maven_version("mvn: not found"), None);
    }

    #[test]
    fn too_little_room_is_said_with_numbers_and_a_way_out() {
        let refused = space(Path::new("/"), u64::MAX >> 21, "the parts", "choose another")
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("MiB free") && refused.ends_with("choose another"),
            "{refused}"
        );
    }
}
