variable "name" { type = string }
variable "port" { type = number }
variable "vpc_id" { type = string }

resource "aws_security_group" "this" {
  name   = var.name
  vpc_id = var.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "http" {
  security_group_id = aws_security_group.this.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = var.port
  to_port           = var.port
}

module "rules" {
  source   = "./rules"
  group_id = aws_security_group.this.id
}

output "group_id" { value = aws_security_group.this.id }
