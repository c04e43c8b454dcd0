use millrace_events::{DocumentStatus, State};

use super::*;
use crate::testing::{FakeEnds, Statuses, document, revision, status};

fn lane(name: &str) -> Lane {
    Lane::new(name).unwrap()
}

/// Tenant `t` has a rule.
fn lanes(statuses: &Statuses) -> Lanes<FakeEnds> {
    let config = LaneConfig {
        tenants: [("t".to_owned(), lane("bulk"))].into(),
        ..crate::testing::lanes()
    };
    lanes_of(config, statuses, Some(0))
}

/// `status_end`: where the status topic ends, or that the log is away.
fn lanes_of(config: LaneConfig, statuses: &Statuses, status_end: Option<i64>) -> Lanes<FakeEnds> {
    let ends = FakeEnds {
        submitted: None,
        status: status_end,
    };
    Lanes::new(config, Arc::new(Repeats::new(statuses.replica.clone(), ends)))
}

fn asked<'a>(document: &'a DocumentKey, offset: i64, lane: &'a str) -> Asked<'a> {
    Asked {
        document,
        revision: revision(offset),
        kind: Kind::Upsert,
        lane,
        partition: 3,
    }
}

/// Reads `Ok` as the lane's name.
async fn of(lanes: &Lanes<FakeEnds>, asked: Asked<'_>) -> Result<String, &'static str> {
    let found = lanes.of(asked).await;
    found.map(|lane| lane.to_string()).map_err(|failure| failure.reason())
}

#[tokio::test]
async fn each_row_of_the_table() {
    use State::*;
    type Row = (
        &'static [(i64, State, &'static str)],
        &'static str,
        Result<&'static str, &'static str>,
    );
    let rows: [Row; 17] = [
        (&[], "", Ok("bulk")),
        (&[], "urgent", Ok("urgent")),
        (&[], "slow", Err("LANE_UNKNOWN")),
        (&[], "Slow!", Err("LANE_INVALID")),
        (&[(1, Parsed, "urgent")], "", Ok("urgent")),
        (&[(1, Parsed, "urgent")], "urgent", Ok("urgent")),
        (&[(1, Indexed, "urgent")], "bulk", Err("LANE_CHANGED")),
        (&[(1, Indexed, "")], "", Ok("base")),
        (&[(1, Indexed, "")], "bulk", Err("LANE_CHANGED")),
        (&[(1, Indexed, "urgent"), (2, Failed, "")], "", Ok("urgent")),
        (&[(1, Indexed, "urgent"), (2, Deleted, "urgent")], "", Ok("bulk")),
        (
            &[(1, Indexed, "urgent"), (2, Parsed, "urgent")],
            "bulk",
            Err("LANE_UNDECIDED"),
        ),
        (&[(1, Indexed, "urgent"), (2, Parsed, "urgent")], "", Ok("urgent")),
        (&[(1, Failed, "urgent")], "", Ok("urgent")),
        (&[(1, Failed, "urgent")], "bulk", Err("LANE_CHANGED")),
        (&[(1, Deleted, "urgent"), (2, Parsed, "bulk")], "", Ok("bulk")),
        (&[(1, Indexed, "gone")], "", Err("LANE_UNKNOWN")),
    ];
    for (written, name, expected) in rows {
        let mut statuses = Statuses::new();
        for (offset, state, lane) in written {
            // Given up by the parse stage, or behind it.
            let stage = if lane.is_empty() { "parse" } else { "embed" };
            let status = DocumentStatus {
                stage: stage.into(),
                chunk_count: i32::from(*offset < 2),
                ..status("d", *offset, *state)
            };
            statuses.write_in(lane, status).await;
        }
        let found = of(&lanes(&statuses), asked(&document("d"), 9, name)).await;
        assert_eq!(
            found.as_deref().map_err(|reason| *reason),
            expected,
            "{written:?} {name:?}"
        );
    }
}

#[tokio::test]
async fn what_was_just_parsed_here_goes_before_what_the_replica_has() {
    let mut statuses = Statuses::new();
    statuses.write_in("urgent", status("d", 1, State::Indexed)).await;
    let (lanes, document) = (lanes(&statuses), document("d"));
    let delete = Asked {
        kind: Kind::Delete,
        ..asked(&document, 2, "")
    };
    assert_eq!(of(&lanes, delete).await.as_deref(), Ok("urgent"));
    lanes.parsed(delete, &lane("urgent"));
    assert_eq!(
        of(&lanes, asked(&document, 3, "bulk")).await.as_deref(),
        Ok("bulk"),
        "deleted"
    );
    lanes.parsed(asked(&document, 3, "bulk"), &lane("bulk"));
    assert_eq!(of(&lanes, asked(&document, 4, "urgent")).await, Err("LANE_CHANGED"));
    // Another process went on with it.
    statuses.write_in("bulk", status("d", 4, State::Deleted)).await;
    assert_eq!(of(&lanes, asked(&document, 5, "urgent")).await.as_deref(), Ok("urgent"));
}

#[tokio::test]
async fn what_is_parsed_again_does_not_see_what_came_after_it() {
    let statuses = Statuses::new();
    let (lanes, document) = (lanes(&statuses), document("d"));
    let urgent = asked(&document, 1, "urgent");
    lanes.parsed(urgent, &lane("urgent"));
    lanes.parsed(
        Asked {
            kind: Kind::Delete,
            ..asked(&document, 2, "")
        },
        &lane("urgent"),
    );
    lanes.parsed(asked(&document, 3, "bulk"), &lane("bulk"));
    assert_eq!(of(&lanes, urgent).await.as_deref(), Ok("urgent"));
    lanes.parsed(urgent, &lane("urgent"));
    assert_eq!(
        of(&lanes, asked(&document, 4, "")).await.as_deref(),
        Ok("bulk"),
        "the newest counts"
    );
}

#[tokio::test]
async fn without_lanes_nothing_is_asked_and_a_named_one_is_unknown() {
    let statuses = Statuses::new();
    let lanes = lanes_of(LaneConfig::default(), &statuses, None);
    assert_eq!(of(&lanes, asked(&document("d"), 1, "")).await.as_deref(), Ok("base"));
    assert_eq!(of(&lanes, asked(&document("d"), 1, "bulk")).await, Err("LANE_UNKNOWN"));
}
