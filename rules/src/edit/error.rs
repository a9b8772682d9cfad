//! What the EC2 API answers to a call that it refuses.

use std::fmt;

use crate::diagnostic::Diagnostic;

/// Why a call was refused; the policy is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// AWS's error code.
    pub code: ErrorCode,
    /// AWS's words where they are known, otherwise what is wrong and how to mend it.
    pub message: String,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError { code, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::InvalidParameterValue, message)
    }

    pub(super) fn missing(parameter: &str) -> Self {
        let message = format!("The request must contain the parameter {parameter}");
        ApiError::new(ErrorCode::MissingParameter, message)
    }
}

/// What validation finds wrong with a change is the answer to the call that made it.
impl From<Diagnostic> for ApiError {
    fn from(found: Diagnostic) -> Self {
        let known = ErrorCode::ALL.iter().find(|code| code.as_str() == found.code);
        // `duplicate-id`, the one finding that AWS, whose ids are its own, has no code for.
        let code = known.copied().unwrap_or(ErrorCode::InvalidParameterValue);
        ApiError::new(code, format!("{}; {}", found.message, found.mend))
    }
}

/// Declares [`ErrorCode`]: a line has the variant, AWS's code and what it means.
macro_rules! error_codes {
    ($($variant:ident $code:literal $meaning:literal)*) => {
        /// AWS's error codes (EC2 API reference, "Error codes"; SEMANTICS 16).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The code verbatim.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$variant => $code,)*
                }
            }
        }
    };
}

error_codes! {
    AttachmentLimitExceeded "AttachmentLimitExceeded" "The instance type has no more interfaces."
    CannotDelete "CannotDelete" "A VPC's default group cannot be deleted."
    DependencyViolation "DependencyViolation" "Something else still needs the object."
    InvalidAction "InvalidAction" "This edition of the API has no such call."
    InvalidAddressNotFound "InvalidAddress.NotFound" "The public address is associated with nothing."
    InvalidGroupDuplicate "InvalidGroup.Duplicate" "The VPC has a group of this name."
    InvalidGroupIdMalformed "InvalidGroupId.Malformed" "A group's id begins with `sg-`."
    InvalidGroupInUse "InvalidGroup.InUse" "An EC2-Classic group is still in use."
    InvalidGroupNotFound "InvalidGroup.NotFound" "There is no such group, or not within reach."
    InvalidGroupReserved "InvalidGroup.Reserved" "The name `default` is AWS's own."
    InvalidIpAddressInUse "InvalidIPAddress.InUse" "Another interface has the private address."
    InvalidNetworkAclEntryNotFound "InvalidNetworkAclEntry.NotFound" "The ACL has no entry of this number."
    InvalidNetworkAclIdNotFound "InvalidNetworkAclID.NotFound" "There is no such network ACL."
    InvalidNetworkInterfaceIdNotFound "InvalidNetworkInterfaceID.NotFound" "There is no such interface."
    InvalidParameter "InvalidParameter" "Parameters do not fit each other: two VPCs."
    InvalidParameterCombination "InvalidParameterCombination" "Parameters exclude each other."
    InvalidParameterValue "InvalidParameterValue" "A value is malformed or out of range."
    InvalidPermissionDuplicate "InvalidPermission.Duplicate" "The group has the rule already."
    InvalidPermissionNotFound "InvalidPermission.NotFound" "The group has no such rule."
    InvalidPrefixListIdNotFound "InvalidPrefixListID.NotFound" "There is no such prefix list."
    InvalidSecurityGroupRuleIdNotFound "InvalidSecurityGroupRuleId.NotFound" "The group has no rule of this id."
    InvalidSubnetIdNotFound "InvalidSubnetID.NotFound" "There is no such subnet."
    InvalidVpcIdNotFound "InvalidVpcID.NotFound" "There is no such VPC."
    InvalidVpcPeeringConnectionIdNotFound "InvalidVpcPeeringConnectionID.NotFound" "There is no such peering connection."
    MissingParameter "MissingParameter" "A parameter that is needed was left out."
    NetworkAclEntryAlreadyExists "NetworkAclEntryAlreadyExists" "The number is taken in this direction."
    NetworkAclEntryLimitExceeded "NetworkAclEntryLimitExceeded" "The ACL is full in this direction."
    NetworkAclLimitExceeded "NetworkAclLimitExceeded" "The VPC has as many ACLs as it may."
    PrivateIpAddressLimitExceeded "PrivateIpAddressLimitExceeded" "The instance type has no more addresses for an interface."
    ResourceAlreadyAssociated "Resource.AlreadyAssociated" "One of the two addresses has an association already."
    RulesPerSecurityGroupLimitExceeded "RulesPerSecurityGroupLimitExceeded" "The group is full in this direction."
    SecurityGroupLimitExceeded "SecurityGroupLimitExceeded" "The VPC has as many groups as it may."
    SecurityGroupsPerInterfaceLimitExceeded "SecurityGroupsPerInterfaceLimitExceeded" "The interface has as many groups as it may."
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
