//! Who holds this instance's name in the consumer group.
//!
//! Being fenced does not tell. A member that was silent for a whole session, say because the broker was away, joins again
//! under a new member id, and a request that it sent under its old one comes back as fenced: it was fenced by itself.
//! The client id tells, which is why each process has one of its own.
//!
//! | the name's member in the group | it was fenced by |
//! |---|---|
//! | has another process's client id | a rival |
//! | has this process's client id, or there is none | itself |

use std::sync::LazyLock;

use rdkafka::groups::GroupInfo;
use uuid::Uuid;

/// What a member id has behind the instance's name: a dash and a UUID, both the broker's.
const SUFFIX: usize = 37;

/// A consumer's client id: of this group, this instance and this process.
pub(crate) fn client_id(group: &str, instance: &str) -> String {
    static PROCESS: LazyLock<String> = LazyLock::new(|| Uuid::new_v4().simple().to_string());
    format!("{group}.{instance}.{}", *PROCESS)
}

/// Another process that holds the name: its client id and its host.
pub(crate) fn in_group(group: &GroupInfo, instance: &str, own: &str) -> Option<String> {
    let members = group.members().iter();
    let holder = members.map(|m| (m.id(), m.client_id(), m.client_host()));
    named(holder, instance, own)
}

fn named<'a>(
    mut members: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
    instance: &str,
    own: &str,
) -> Option<String> {
    let is_named = |id: &str| id.strip_prefix(instance).is_some_and(|rest| rest.len() == SUFFIX);
    members
        .find(|(id, client, _)| is_named(id) && *client != own)
        .map(|(_, client, host)| format!("{client} at {}", host.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table() {
        const UUID: &str = "-0b1f7c1e-52a7-4a2c-9d0f-6f1f0d9f3a11";
        let (a, ab) = (format!("a{UUID}"), format!("a-b{UUID}"));
        let of = |client| [(a.as_str(), client, "/10.0.0.1"), (ab.as_str(), "g.a-b.9", "/10.0.0.2")];
        assert_eq!(
            named(of("g.a.2").into_iter(), "a", "g.a.1").as_deref(),
            Some("g.a.2 at 10.0.0.1")
        );
        assert_eq!(named(of("g.a.1").into_iter(), "a", "g.a.1"), None);
        assert_eq!(named(of("g.a.1").into_iter().skip(1), "a", "g.a.1"), None);
    }
}
