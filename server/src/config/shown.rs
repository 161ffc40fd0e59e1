//! URLs of backends as they may be shown.

use std::borrow::Cow;

use super::HIDDEN;

/// Options whose values are hidden: those whose names contain one of these.
const SECRET_OPTIONS: [&str; 3] = ["password", "secret", "token"];

/// A URL without the passwords in it: in its user part, `redis://user:password@host`, and in its options,
/// `…?sentinel_password=…`.
pub(super) fn hide_passwords(url: &str) -> Cow<'_, str> {
    match hide_in_user(url) {
        Some(shown) => Cow::Owned(hide_in_options(&shown).into_owned()),
        None => hide_in_options(url),
    }
}

fn hide_in_user(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let (place, authority) = (rest.split('?').next()?, rest.split(['/', '?']).next()?);
    let end = match authority.rfind('@') {
        Some(end) => end,
        // A password that was not percent-encoded may hold a `/` or a `?`.
        None if !may_be_server(authority) => rest.rfind('@')?,
        None if authority.contains(':') => place.rfind('@')?,
        None => return None,
    };
    let (user_info, server) = rest.split_at(end);
    let shown = match user_info.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{HIDDEN}{server}"),
        // It is not told whether this is a user or a password.
        None => format!("{scheme}://{HIDDEN}{server}"),
    };
    Some(shown)
}

/// Whether what follows each colon could be a port.
fn may_be_server(authority: &str) -> bool {
    authority.split(',').all(|server| match server.rsplit_once(':') {
        Some((_, port)) => port.bytes().all(|byte| byte.is_ascii_digit()),
        None => true,
    })
}

fn hide_in_options(url: &str) -> Cow<'_, str> {
    let Some((place, options)) = url.split_once('?') else {
        return Cow::Borrowed(url);
    };
    let is_secret = |option: &&str| {
        let name = option.split_once('=').map_or("", |(name, _)| name).to_ascii_lowercase();
        SECRET_OPTIONS.iter().any(|secret| name.contains(secret))
    };
    if !options.split('&').any(|option| is_secret(&option)) {
        return Cow::Borrowed(url);
    }
    let shown = options.split('&').map(|option| match option.split_once('=') {
        Some((name, _)) if is_secret(&option) => format!("{name}={HIDDEN}"),
        _ => option.to_owned(),
    });
    Cow::Owned(format!("{place}?{}", shown.collect::<Vec<_>>().join("&")))
}

#[cfg(test)]
mod tests {
    use super::hide_passwords;

    #[test]
    fn passwords_are_hidden() {
        for (url, expected) in [
            ("redis://me:hunter2@host:1/0", "redis://me:(hidden)@host:1/0"),
            ("redis://:hunter2@host", "redis://:(hidden)@host"),
            ("redis://hunter2@host", "redis://(hidden)@host"),
            ("redis://me:hun:ter@hunter2@host", "redis://me:(hidden)@host"),
            ("redis://me:hun/hunter2@host/0", "redis://me:(hidden)@host/0"),
            ("redis://me:hun?hunter2@host", "redis://me:(hidden)@host"),
            ("redis://me:12/hunter2@host", "redis://me:(hidden)@host"),
            (
                "redis+sentinel://me:hunter2@a,b/m?sentinel_password=hunter2&prefix=p",
                "redis+sentinel://me:(hidden)@a,b/m?sentinel_password=(hidden)&prefix=p",
            ),
            ("postgres://host/db?PASSWORD=hunter2", "postgres://host/db?PASSWORD=(hidden)"),
            ("s3://bucket/p?secret_access_key=hunter2", "s3://bucket/p?secret_access_key=(hidden)"),
        ] {
            assert_eq!(hide_passwords(url), expected);
        }
    }

    #[test]
    fn what_is_no_password_is_shown() {
        for url in [
            "memory:",
            "files:a@b?sync=always",
            "redis://host:6379/0?prefix=a@b",
            "redis+cluster://a:1,b:2",
            "redis://[::1]:6379",
            "s3://bucket/a@b",
        ] {
            assert_eq!(hide_passwords(url), url);
        }
    }
}
