variable "group_id" { type = string }

resource "aws_vpc_security_group_egress_rule" "dns" {
  security_group_id = var.group_id
  cidr_ipv4         = "10.0.0.0/8"
  ip_protocol       = "udp"
  from_port         = 53
  to_port           = 53
}
