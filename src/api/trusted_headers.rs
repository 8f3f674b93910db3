//! PURE: the person whom an authenticating proxy names in headers.
//!
//! Anyone can write headers. So they count only in what a configured proxy sends ([`crate::ingress::proxies`]), and only
//! under exactly the configured names: `X_Forwarded_User` is another header than `X-Forwarded-User`. What comes twice is
//! refused, because one of the two may be the client's own.

use axum::http::{HeaderMap, HeaderName};

use super::person::{Person, name_of};
use super::problem::Problem;
use crate::domain::groups::{Grant, Groups};

/// The headers in which a proxy names people.
#[derive(Debug, Clone)]
pub struct TrustedHeaders {
    /// Who it is.
    pub user: HeaderName,
    /// Its groups, with commas between them.
    pub groups: HeaderName,
}

impl TrustedHeaders {
    /// The person whom the headers of a proxy's request name; none where they name nobody.
    pub fn person(&self, headers: &HeaderMap, groups: &Groups) -> Result<Option<Person>, Problem> {
        let (user, named) = (one(headers, &self.user)?, one(headers, &self.groups)?);
        let Some(name) = user.and_then(name_of) else { return Ok(None) };
        let named = named.unwrap_or_default().split(',').map(str::trim);
        match groups.grant(named) {
            Some(Grant { role, selector, .. }) => {
                Ok(Some(Person { name, role, selector, session: None }))
            }
            None => Err(Problem::forbidden(&format!(
                "The proxy says that you are {name:?}, and none of your groups opens anything here."
            ))),
        }
    }
}

/// The one value of a header, if it is text.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::header_twice(name.as_str()));
    }
    Ok(first.and_then(|value| std::str::from_utf8(value.as_bytes()).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::Role;
    use axum::http::HeaderValue;

    fn asked(lines: &[(&str, &[u8])]) -> Result<Option<(String, Role)>, u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        let trusted = TrustedHeaders {
            user: HeaderName::from_static("x-forwarded-user"),
            groups: HeaderName::from_static("x-forwarded-groups"),
        };
        let groups = Groups {
            admin: ["root".to_owned()].into(),
            read: ["all".to_owned()].into(),
            ..Groups::default()
        };
        let person = trusted.person(&headers, &groups).map_err(|problem| problem.code())?;
        Ok(person.map(|person| (person.name, person.role)))
    }

    #[test]
    fn a_person_is_who_one_header_names_with_the_role_of_its_groups() {
        let ada = |role| Ok(Some(("ada".to_owned(), role)));
        let (user, groups) = ("x-forwarded-user", "x-forwarded-groups");
        assert_eq!(asked(&[(user, b"ada"), (groups, b"all,root")]), ada(Role::Admin));
        assert_eq!(asked(&[(user, b" ada "), (groups, b" all , none")]), ada(Role::Read));
        assert_eq!(asked(&[("X-Forwarded-User", b"ada"), (groups, b"all")]), ada(Role::Read));
        let named = Ok(Some(("Zo\u{eb}".to_owned(), Role::Read)));
        assert_eq!(asked(&[(user, "Zo\u{eb}".as_bytes()), (groups, b"all")]), named);
    }

    #[test]
    fn nobody_gets_in_by_what_is_empty_twice_unreadable_or_called_otherwise() {
        let (user, groups) = ("x-forwarded-user", "x-forwarded-groups");
        assert_eq!(asked(&[]), Ok(None));
        assert_eq!(asked(&[(groups, b"root")]), Ok(None));
        assert_eq!(asked(&[(user, b""), (groups, b"root")]), Ok(None));
        assert_eq!(asked(&[(user, b"\xff"), (groups, b"root")]), Ok(None));
        assert_eq!(asked(&[("x_forwarded_user", b"ada"), (groups, b"root")]), Ok(None));
        assert_eq!(asked(&[(user, b"ada")]), Err(403));
        assert_eq!(asked(&[(user, b"ada"), (groups, b"")]), Err(403));
        assert_eq!(asked(&[(user, b"ada"), (groups, b"\xff")]), Err(403));
        assert_eq!(asked(&[(user, b"ada"), ("x_forwarded_groups", b"root")]), Err(403));
        assert_eq!(asked(&[(user, b"ada"), (user, b"eve"), (groups, b"root")]), Err(400));
        assert_eq!(asked(&[(user, b"ada"), (groups, b"all"), (groups, b"root")]), Err(400));
    }
}
