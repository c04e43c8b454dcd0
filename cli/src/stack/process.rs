//! Processes of the stack: each in a group of its own, with its output in a file and its id in another.
//!
//! The group keeps a terminal's Ctrl-C away from them: `up` stops them in order. Whatever an `up` that was killed left
//! behind is recognised by the id in the file together with a command line that names this stack's directory.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::state::Layout;

/// How a part is started and stopped.
#[derive(Debug, Clone)]
pub struct Program {
    /// The part's: [`super::size::Size::parts`].
    pub name: String,
    /// What runs.
    pub command: PathBuf,
    /// Its arguments; one of them names the stack's directory.
    pub args: Vec<OsString>,
    /// Variables added to this process's own.
    pub envs: Vec<(OsString, OsString)>,
    /// Variables of this process that it does not get.
    pub without: Vec<OsString>,
    /// Where its files are.
    pub layout: Layout,
    /// How long a clean stop may take before it is killed.
    pub stop_within: Duration,
    /// Its stdin is a pipe that we hold open: it ends by itself when we are killed.
    pub ends_with_us: bool,
}

/// A running part. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    _stdin: Option<ChildStdin>,
    stop_within: Duration,
    pid_file: PathBuf,
}

impl Program {
    /// Starts it. What the log holds of the runs before is kept, up to a size.
    pub fn spawn(&self) -> Result<Process> {
        let log_path = self.layout.log(&self.name);
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let mut command = Command::new(&self.command);
        for name in &self.without {
            command.env_remove(name);
        }
        let mut child = command
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .current_dir(self.layout.root())
            .stdin(if self.ends_with_us {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {} ({})", self.name, self.command.display()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| anyhow!("{} ended at once", self.name))?;
        let pid_file = self.layout.pid(&self.name);
        super::state::write_whole(&pid_file, &format!("{}\n", pid.as_raw_nonzero()))?;
        Ok(Process {
            _stdin: child.stdin.take(),
            child,
            pid,
            stop_within: self.stop_within,
            pid_file,
        })
    }
}

impl Process {
    /// Its id.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait().await?;
        let _ = fs::remove_file(&self.pid_file);
        Ok(status)
    }

    /// Asks it to end, and kills it when it takes too long. True if it ended by itself.
    pub async fn stop(mut self) -> Result<bool> {
        // A process that is gone already is what we want: errors here mean nothing else.
        let _ = kill_process(self.pid, Signal::TERM);
        let in_time = timeout(self.stop_within, self.ended()).await;
        if let Ok(ended) = in_time {
            ended?;
            return Ok(true);
        }
        let _ = kill_process_group(self.pid, Signal::KILL);
        self.ended().await?;
        Ok(false)
    }
}

/// How a process ended, for people.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Stops what an earlier `up` left behind of a part, and says its id. The caller holds the directory's lock, so
/// whatever still runs here belongs to nobody.
pub async fn stop_stale(name: &str, layout: &Layout, within: Duration) -> Result<Option<i32>> {
    let file = layout.pid(name);
    let Ok(text) = fs::read_to_string(&file) else {
        return Ok(None);
    };
    let Some(pid) = text.trim().parse().ok().filter(|id| *id > 1).and_then(Pid::from_raw) else {
        return Ok(None);
    };
    let ours = || is_ours(pid, layout);
    if !ours() {
        let _ = fs::remove_file(&file);
        return Ok(None);
    }
    let _ = kill_process(pid, Signal::TERM);
    // Not our child, so there is nothing to wait on but its disappearance.
    let gone = async {
        let mut poll = tokio::time::interval(Duration::from_millis(50));
        while ours() {
            poll.tick().await;
        }
    };
    if timeout(within, gone).await.is_err() {
        let _ = kill_process(pid, Signal::KILL);
        let gone = async {
            let mut poll = tokio::time::interval(Duration::from_millis(50));
            while ours() {
                poll.tick().await;
            }
        };
        timeout(Duration::from_secs(5), gone).await.map_err(|_| {
            anyhow!(
                "process {} of an earlier {name} cannot be stopped",
                pid.as_raw_nonzero()
            )
        })?;
    }
    let _ = fs::remove_file(&file);
    Ok(Some(pid.as_raw_nonzero().get()))
}

/// Whether a process runs and its command line names the stack's directory. A zombie has no command line.
fn is_ours(pid: Pid, layout: &Layout) -> bool {
    let id = pid.as_raw_nonzero();
    let line = if PathBuf::from("/proc/self/cmdline").exists() {
        fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default()
    } else {
        let ps = std::process::Command::new("ps")
            .args(["-ww", "-o", "command=", "-p", &id.to_string()])
            .output();
        ps.map(|o| o.stdout).unwrap_or_default()
    };
    names(&String::from_utf8_lossy(&line), &layout.root().to_string_lossy())
}

/// Whether a command line (arguments apart by NUL or space) names the directory or something below it, and not only a
/// directory whose name begins alike.
fn names(command_line: &str, dir: &str) -> bool {
    command_line.match_indices(dir).any(|(at, _)| {
        matches!(
            command_line[at + dir.len()..].chars().next(),
            None | Some('/' | '\0' | ' ' | '\n')
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(layout: &Layout, argument: &str) -> Program {
        Program {
            name: "kafka".to_owned(),
            command: "sh".into(),
            args: vec!["-c".into(), "sleep 600; :".into(), argument.into()],
            envs: Vec::new(),
            without: Vec::new(),
            layout: layout.clone(),
            stop_within: Duration::from_secs(5),
            ends_with_us: false,
        }
    }

    #[test]
    fn a_directory_is_recognised_whole() {
        assert!(names("java\0-Dx=/a/.millrace\0-y", "/a/.millrace"));
        assert!(names("java\0/a/.millrace/config/kafka.properties", "/a/.millrace"));
        assert!(!names("java\0/a/.millrace2/config/kafka.properties", "/a/.millrace"));
    }

    #[tokio::test]
    async fn what_was_left_behind_is_stopped_and_a_stranger_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        layout.create().unwrap();
        let within = Duration::from_secs(5);

        let mut ours = sleeper(&layout, &layout.root().to_string_lossy()).spawn().unwrap();
        let id = ours.id();
        // Reaped as init would: a zombie is as good as gone, but say so either way.
        let (stopped, ended) = tokio::join!(stop_stale("kafka", &layout, within), ours.ended());
        assert_eq!(stopped.unwrap(), Some(id));
        assert_eq!(ended.unwrap().signal(), Some(15));

        let stranger = sleeper(&layout, "elsewhere").spawn().unwrap();
        assert_eq!(stop_stale("kafka", &layout, within).await.unwrap(), None);
        assert!(stranger.stop().await.unwrap(), "still there to be stopped");
        assert_eq!(stop_stale("kafka", &layout, within).await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_that_will_not_end_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        layout.create().unwrap();
        let mut program = sleeper(&layout, "x");
        program.args = vec![
            "-c".into(),
            "trap '' TERM; echo ready; while :; do sleep 1; done".into(),
        ];
        program.stop_within = Duration::from_millis(200);
        let process = program.spawn().unwrap();
        while fs::read_to_string(layout.log("kafka")).unwrap_or_default().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!process.stop().await.unwrap());
    }
}
