//! Values in every form, as a server keeps them.

use std::fmt::Debug;

use bytes::Bytes;
use futures::StreamExt as _;
use holdfast_client::{
    BoxError, Change, Codec, Decode, Encode, Error, Json, MessagePack, Namespace, Postcard, Prost,
    Raw, Selector, Text, WatchItem,
};
use holdfast_proto::v1;
use serde::{Deserialize, Serialize};

use crate::fixture::with_namespace;

/// What a program knew of carts at first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cart {
    owner: String,
    items: Vec<u32>,
    note: Option<String>,
}

/// What it knows now: one field more, one fewer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct NewCart {
    owner: String,
    items: Vec<u32>,
    #[serde(default = "no_coupon")]
    coupon: String,
}

fn no_coupon() -> String {
    "none".to_owned()
}

fn cart() -> Cart {
    Cart { owner: "ann".to_owned(), items: vec![1, 70_000], note: Some("gift".to_owned()) }
}

/// Writes a value and reads it back, by all that reads values; answers with what is stored.
async fn round_trip<C, T>(ns: &Namespace, codec: C, value: &T) -> (String, Bytes)
where
    C: Codec + Encode<T> + Decode<T>,
    T: Debug + PartialEq + Send + Sync + 'static,
{
    let expected_type = codec.content_type().to_owned();
    let typed = ns.with_codec(codec);
    let key = format!("k:{expected_type}");
    let mut watch = typed.watch::<T>(Selector::key(&key)).await.expect("stands");
    typed.set(&key, value).await.expect("answers");
    let read = typed.get::<T>(&key).await.expect("answers").expect("is there");
    assert_eq!(&read.value, value);
    assert_eq!(read.metadata.content_type, expected_type);
    let listed = typed.list::<T>(Selector::key(&key)).all().await.expect("answers");
    assert_eq!(&listed[0].value, value);
    let told = loop {
        match watch.next().await.expect("goes on").expect("reads") {
            WatchItem::Event(event) => break event.change,
            WatchItem::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(&told, Change::Set(entry) if &entry.value == value), "{told:?}");
    let raw = ns.with_codec(Raw::new()).get::<Bytes>(&key).await.expect("answers");
    (expected_type, raw.expect("is there").value)
}

#[test]
fn every_codec_brings_values_back_and_names_its_form() {
    with_namespace("codecs", async |ns| {
        let (form, json) = round_trip(&ns, Json, &cart()).await;
        assert_eq!(form, "application/json");
        let (form, msgpack) = round_trip(&ns, MessagePack, &cart()).await;
        assert_eq!(form, "application/msgpack");
        let (form, postcard) = round_trip(&ns, Postcard, &cart()).await;
        assert_eq!(form, "application/postcard");
        assert!(postcard.len() < msgpack.len() && msgpack.len() < json.len());
        let (form, bytes) = round_trip(&ns, Raw::new(), &b"\xff\0\xfe".to_vec()).await;
        assert_eq!((form.as_str(), &bytes[..]), ("application/octet-stream", &b"\xff\0\xfe"[..]));
        let (form, text) = round_trip(&ns, Text, &-5_i64).await;
        assert_eq!((form.as_str(), &text[..]), ("text/plain", &b"-5"[..]));
        let message = v1::Guard { lock: "nightly".to_owned(), token: 7 };
        let (form, _) = round_trip(&ns, Prost::new(), &message).await;
        assert_eq!(form, "application/protobuf");
    });
}

#[test]
fn a_value_of_another_form_is_told_with_its_key_and_both_forms() {
    with_namespace("forms", async |ns| {
        ns.with_codec(MessagePack).set("cart", &cart()).await.expect("answers");
        let error = ns.get::<Cart>("cart").await.expect_err("is no JSON");
        let Error::UnexpectedContentType { key, expected, found } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(
            (key.as_str(), expected.as_str(), found.as_str()),
            ("cart", "application/json", "application/msgpack")
        );
        let told = error.to_string();
        assert!([key, expected, found].iter().all(|part| told.contains(*part)), "{told}");

        // In lists, too, where the others are read all the same.
        ns.set("dart", &cart()).await.expect("answers");
        let all: Vec<_> = ns.list::<Cart>(Selector::all()).stream().collect().await;
        assert!(matches!(&all[..], [Err(Error::UnexpectedContentType { .. }), ..]), "{all:?}");

        // Bytes that do not say what they are could be anything: JSON looks at them, others do not.
        let unsaid = ns.with_codec(Raw::with_content_type(""));
        unsaid.set("unsaid", "\"x\"").await.expect("answers");
        assert_eq!(ns.get::<String>("unsaid").await.expect("JSON").expect("is there").value, "x");
        let error = ns.with_codec(Postcard).get::<String>("unsaid").await.expect_err("unsaid");
        assert!(matches!(&error, Error::UnexpectedContentType { found, .. } if found.is_empty()));
    });
}

#[test]
fn bytes_that_are_no_such_value_are_an_error_of_the_codec() {
    with_namespace("bytes", async |ns| {
        let odd = b"\xff\xfe\x80";
        for content_type in [
            "application/json",
            "application/msgpack",
            "application/postcard",
            "application/protobuf",
            "text/plain",
        ] {
            let raw = ns.with_codec(Raw::with_content_type(content_type));
            raw.set(content_type, odd).await.expect("answers");
        }
        let errors = [
            ns.get::<Cart>("application/json").await.map(drop),
            ns.with_codec(MessagePack).get::<Cart>("application/msgpack").await.map(drop),
            ns.with_codec(Postcard).get::<Cart>("application/postcard").await.map(drop),
            ns.with_codec(Prost::new()).get::<v1::Guard>("application/protobuf").await.map(drop),
            ns.with_codec(Text).get::<String>("text/plain").await.map(drop),
            ns.with_codec(Raw::new()).get::<String>("text/plain").await.map(drop),
        ];
        for error in errors {
            assert!(matches!(&error, Err(Error::Codec { .. })), "{error:?}");
        }
        let bytes = ns.with_codec(Raw::new()).get::<Vec<u8>>("text/plain").await;
        assert_eq!(bytes.expect("answers").expect("is there").value, odd);
    });
}

#[test]
fn structs_grow_where_fields_have_names() {
    with_namespace("growth", async |ns| {
        let expected =
            NewCart { owner: "ann".to_owned(), items: vec![1, 70_000], coupon: no_coupon() };
        ns.set("json", &cart()).await.expect("answers");
        let read = ns.get::<NewCart>("json").await.expect("reads").expect("is there");
        assert_eq!(read.value, expected);

        let msgpack = ns.with_codec(MessagePack);
        msgpack.set("msgpack", &cart()).await.expect("answers");
        let read = msgpack.get::<NewCart>("msgpack").await.expect("reads").expect("is there");
        assert_eq!(read.value, expected);
        // And the other way: who has not been told of the new field.
        msgpack.set("msgpack", &expected).await.expect("answers");
        let read = msgpack.get::<Cart>("msgpack").await.expect("reads").expect("is there");
        assert_eq!((read.value.owner, read.value.note), ("ann".to_owned(), None));

        // Without names another struct is another form; what is left over is noticed.
        let postcard = ns.with_codec(Postcard);
        postcard.set("postcard", &cart()).await.expect("answers");
        let error = postcard.get::<(String, Vec<u32>)>("postcard").await.expect_err("is longer");
        assert!(matches!(&error, Error::Codec { key, .. } if key == "postcard"), "{error:?}");
    });
}

#[test]
fn a_named_message_is_not_taken_for_another() {
    with_namespace("messages", async |ns| {
        let guard = v1::Guard { lock: "nightly".to_owned(), token: 7 };
        let guards = ns.with_codec(Prost::named("holdfast.v1.Guard"));
        guards.set("guard", &guard).await.expect("answers");
        let read = guards.get::<v1::Guard>("guard").await.expect("reads").expect("is there");
        assert_eq!(read.value, guard);
        assert_eq!(read.metadata.content_type, "application/protobuf; proto=holdfast.v1.Guard");
        let locks = ns.with_codec(Prost::named("holdfast.v1.Lock"));
        let error = locks.get::<v1::Lock>("guard").await.expect_err("is another");
        assert!(matches!(error, Error::UnexpectedContentType { .. }), "{error:?}");
        let any = ns.with_codec(Prost::new());
        assert_eq!(
            any.get::<v1::Guard>("guard").await.expect("reads").expect("there").value,
            guard
        );
    });
}

/// Points as two bytes.
#[derive(Clone)]
struct Points;

impl Codec for Points {
    fn content_type(&self) -> &str {
        "application/x-point"
    }
}

impl Encode<(u8, u8)> for Points {
    fn encode(&self, (x, y): &(u8, u8)) -> Result<Bytes, BoxError> {
        Ok(Bytes::copy_from_slice(&[*x, *y]))
    }
}

impl Decode<(u8, u8)> for Points {
    fn decode(&self, bytes: Bytes) -> Result<(u8, u8), BoxError> {
        match bytes[..] {
            [x, y] => Ok((x, y)),
            _ => Err("a point has two bytes".into()),
        }
    }
}

#[test]
fn a_codec_of_ones_own_works_everywhere() {
    with_namespace("points", async |ns| {
        let (form, bytes) = round_trip(&ns, Points, &(3, 4)).await;
        assert_eq!((form.as_str(), &bytes[..]), ("application/x-point", &[3, 4][..]));
        let points = ns.with_codec(Points);
        points.set_many([("a", (1, 1)), ("b", (2, 2))]).await.expect("answers");
        let moved = points
            .transact(async |tx| {
                let (x, y): (u8, u8) = tx.get("a").await?.expect("was just set");
                tx.set("a", &(x + 1, y))?;
                Ok(())
            })
            .await;
        moved.expect("commits");
        let both = points.get_many::<(u8, u8)>(["a", "b"]).await.expect("answers");
        let both: Vec<_> = both.into_iter().flatten().map(|entry| entry.value).collect();
        assert_eq!(both, [(2, 1), (2, 2)]);
    });
}
