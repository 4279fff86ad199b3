//! Users and the form of their credentials.
//!
//! Invariant: a text that begins like a verifier is one, or an error. PostgreSQL would take a
//! damaged verifier for a password; here it is far more often a slip in copying.

use std::collections::BTreeMap;

use super::Checker;
use crate::config::decode::Field;
use crate::config::leaves::RawSecret;
use crate::config::raw::RawConfig;
use crate::config::secret::{Credential, Secret};
use crate::config::types::{Pool, User};

impl Checker<'_, '_> {
    pub(super) fn users(&mut self, raw: &RawConfig, pool: &Pool) -> BTreeMap<String, User> {
        let mut users = BTreeMap::new();
        for (name, at) in raw.users.value().into_iter().flat_map(|users| &users.0) {
            let credential = self.credential(&at.value.password);
            let pool = self.overrides(&at.value.pool, pool);
            users.insert(name.clone(), User { credential, pool });
        }
        users
    }

    /// The console's users: each needs a password, since no server is there to ask.
    pub(super) fn console_users(&mut self, raw: &RawConfig) -> BTreeMap<String, Credential> {
        let mut users = BTreeMap::new();
        let given = raw.console.value().and_then(|console| console.users.value());
        for (name, at) in given.into_iter().flat_map(|users| &users.0) {
            if at.value.password.is_absent() {
                let help = "write password = { file = \"PATH\" }".to_owned();
                self.problems.error(&at.span, &at.path, "needs a `password`", help);
            }
            let credential = self.credential(&at.value.password);
            users.extend(credential.map(|credential| (name.clone(), credential)));
        }
        users
    }

    fn credential(&mut self, field: &Field<RawSecret>) -> Option<Credential> {
        let credential = self.secret(field).map(credential);
        if credential.as_ref().is_some_and(Result::is_err)
            && let Some(password) = field.given()
        {
            let message = "begins like a SCRAM verifier and is none";
            let help = "copy rolpassword from pg_authid whole: SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY";
            self.problems.error(&password.span, &password.path, message, help.to_owned());
        }
        credential.and_then(Result::ok)
    }
}

/// Tells the kinds apart as `get_password_type` does (src/backend/libpq/crypt.c).
fn credential(secret: Secret) -> Result<Credential, ()> {
    let text = secret.expose();
    if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
        return if is_scram(rest) { Ok(Credential::ScramVerifier(secret)) } else { Err(()) };
    }
    let md5 = text
        .strip_prefix("md5")
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    Ok(if md5 { Credential::Md5Hash(secret) } else { Credential::Password(secret) })
}

/// `<iterations>:<salt>$<StoredKey>:<ServerKey>`, keys of 32 bytes in base64.
fn is_scram(rest: &str) -> bool {
    let parts = || {
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        Some((iterations, salt, stored, server))
    };
    let base64 = |text: &str| {
        let body = text.trim_end_matches('=');
        text.len().is_multiple_of(4)
            && text.len() - body.len() <= 2
            && !body.is_empty()
            && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
    };
    parts().is_some_and(|(iterations, salt, stored, server)| {
        iterations.parse::<u32>().is_ok_and(|n| n > 0)
            && base64(salt)
            && [stored, server].iter().all(|key| key.len() == 44 && base64(key))
    })
}
