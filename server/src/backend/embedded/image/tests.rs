//! A snapshot that is collected while commits come in holds what was there at its end.

use super::{Capture, Image, Step};
use crate::backend::{
    Change, Created, Draft, GroupIndex, Groups, Key, NamespaceName, NewDeadline, Position, Removal,
    Retain, Revision, SharedChange, StoredEntry, Write, WriteOp,
    embedded::{
        journal::{NamespaceState, Place, SnapshotWriter, Version},
        snapshot::{Beside, Pace},
    },
};

/// Puts into another image what a snapshot is told.
#[derive(Default)]
struct Copy(Option<Image>);

impl Copy {
    fn image(&mut self) -> &mut Image {
        self.0.as_mut().expect("a namespace has begun")
    }
}

impl SnapshotWriter for Copy {
    fn begin(&mut self, state: &NamespaceState) -> Result<(), String> {
        self.0 = Some(Image::restored(state));
        Ok(())
    }

    fn put(&mut self, change: &Change, place: Place, same_value: bool) -> Result<(), String> {
        let Change { key, revision, time_ms, kind, entry, .. } = change;
        let stamp = crate::backend::GroupStamp { revision: *revision, time_ms: *time_ms };
        let (key, entry, kind) = (key.clone(), entry.clone(), *kind);
        self.image().put_version(Version { key, stamp, kind, entry, place, same_value })
    }

    fn drop_key(&mut self, key: &Key) -> Result<(), String> {
        self.image().drop_key(key)
    }

    fn end(&mut self, compacted: Revision) -> Result<(), String> {
        self.image().forget_through(compacted)
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }
}

/// All that can be seen of an image, in words.
fn show(image: &Image) -> Vec<String> {
    let mut lines = vec![format!("{:?}", image.tip(0)), format!("{:?}", image.log_shape())];
    lines.extend(image.log.iter().map(|change| line(change)));
    for space in [&image.user, &image.notes, &image.internal] {
        for newest in space.newest_after(None, 1000) {
            let versions = std::iter::successors(Some(newest), |version| version.previous());
            let held =
                versions.take_while(|it| it.revision > image.compacted || it.entry.is_some());
            // Behind the first that is compacted, nothing has to be kept.
            let compacted = |version: &SharedChange| version.revision <= image.compacted;
            let mut ended = false;
            let held = held.take_while(|it| !std::mem::replace(&mut ended, compacted(it)));
            lines.extend(held.map(|version| line(&version)));
        }
    }
    lines
}

fn line(change: &Change) -> String {
    let Change { key, revision, time_ms, kind, entry, .. } = change;
    format!("{key:?} {revision} {time_ms} {kind:?} {entry:?}")
}

fn set(value: usize) -> Draft {
    Draft {
        value: value.to_string().into(),
        content_type: "".into(),
        version: 1,
        created: Created::By(GroupIndex(0)),
        deadline: NewDeadline::Never,
    }
}

/// The commits that one step of the test makes.
fn change(image: &mut Image, number: usize) {
    let keys: [&[u8]; 4] = [b"user", b"\0\0note", b"\0internal", b"other"];
    let name = [keys[number % 4], format!("{}", number / 4 % 3).as_bytes()].concat();
    let key = Key::new(&name);
    let is_there = image.get(&key).is_some();
    let op = match number * 7 % 5 {
        0 if is_there => WriteOp::Remove(Removal::Deleted),
        1 | 2 if key.is_internal() => WriteOp::SetUnlogged(set(number)),
        3 if key.is_internal() => WriteOp::RemoveUnlogged,
        _ => WriteOp::Set(set(number)),
    };
    image.apply(Groups { writes: vec![Write { key, op }], ends: vec![1] });
    if number.is_multiple_of(11) {
        image.trim(&Retain::After(Revision(image.revision.0.saturating_sub(4))), 1000);
    }
    if number.is_multiple_of(97) {
        image.clear(Vec::new());
    }
}

/// Renewals of a lock are not in the log, its grants and values are.
#[test]
fn what_is_written_without_a_trace_hides_what_it_takes_the_place_of() {
    let mut image = Image::new(Position(0), Revision(10), 5);
    let key = Key::new(b"\0lock");
    let write = |image: &mut Image, op| {
        image.apply(Groups { writes: vec![Write { key: key.clone(), op }], ends: vec![1] });
    };
    let other = |image: &mut Image| {
        let write = Write { key: Key::new(b"user"), op: WriteOp::Set(set(0)) };
        image.apply(Groups { writes: vec![write], ends: vec![1] });
    };
    write(&mut image, WriteOp::Set(set(1)));
    write(&mut image, WriteOp::Set(set(2)));
    other(&mut image);
    write(&mut image, WriteOp::SetUnlogged(set(3)));
    let newest = |image: &Image| image.newest(&Key::new(b"\0lock")).expect("it is there");
    let value_at = |image: &Image, at| {
        let found = StoredEntry::at(newest(image), at);
        found.map(|found| String::from_utf8_lossy(&found.value).into_owned())
    };
    assert_eq!(value_at(&image, Some(Revision(11))).as_deref(), Some("1"));
    assert_eq!(value_at(&image, Some(Revision(12))), None, "its deadline may have been another");
    assert_eq!(value_at(&image, Some(Revision(13))).as_deref(), Some("3"));
    for round in 0..100 {
        write(&mut image, WriteOp::SetUnlogged(set(round)));
        write(&mut image, WriteOp::Set(set(round)));
        write(&mut image, WriteOp::SetUnlogged(set(round)));
        image.trim(&Retain::After(image.revision), usize::MAX);
        let versions = std::iter::successors(Some(newest(&image)), |it| it.previous()).count();
        assert_eq!(versions, 1, "the log holds none of those before");
    }
    assert_eq!(value_at(&image, None).as_deref(), Some("99"));
}

#[test]
fn what_changes_while_it_is_collected_is_told_as_it_is_in_the_end() {
    let name = NamespaceName::new("n");
    let (mut done, mut lost) = (0, 0);
    for start in 0..400 {
        for between in 0..6 {
            let mut image = Image::new(Position(0), Revision(10), 5);
            let mut number = start;
            let mut run = |image: &mut Image, count: usize| {
                for _ in 0..count {
                    change(image, number);
                    number += 1;
                }
            };
            run(&mut image, 30);
            let mut capture = Capture::new(&image);
            loop {
                match capture.step(&image, &name, false) {
                    Step::More => run(&mut image, between),
                    Step::Lost => {
                        lost += 1;
                        break;
                    }
                    Step::Done(state, later) => {
                        let mut copy = Copy::default();
                        let beside = Beside::default();
                        let pace = Pace::new(&beside);
                        capture
                            .write(&state, later, (&mut copy, pace), || image.compacted)
                            .unwrap();
                        let copy = copy.image();
                        assert_eq!(show(copy), show(&image), "start {start}, {between} between");
                        done += 1;
                        break;
                    }
                }
            }
        }
    }
    assert!(done > 1000 && lost > 10, "{done} were told, {lost} lost");
}

/// A snapshot may take so long to write that all of the log it tells is forgotten meanwhile, and more.
#[test]
fn a_snapshot_is_sound_of_which_the_log_is_forgotten_before_it_is_written() {
    for (from, more) in [(0, 0), (20, 4), (40, 30)] {
        let name = NamespaceName::new("n");
        let mut image = Image::new(Position(0), Revision(10), 5);
        (from..from + 30).for_each(|number| change(&mut image, number));
        let mut capture = Capture::new(&image);
        let (state, later) = loop {
            match capture.step(&image, &name, true) {
                Step::More => {}
                Step::Lost => panic!("nothing changes meanwhile"),
                Step::Done(state, later) => break (state, later),
            }
        };
        image.trim(&Retain::After(image.revision), usize::MAX);
        let expected = show(&image);
        (from..from + more).for_each(|number| change(&mut image, number));
        image.trim(&Retain::After(image.revision), usize::MAX);
        let mut copy = Copy::default();
        let beside = Beside::default();
        let written = (&mut copy as &mut dyn SnapshotWriter, Pace::new(&beside));
        capture.write(&state, later, written, || image.compacted).expect("it can be put");
        assert_eq!(show(copy.image()), expected, "{more} more");
    }
}
