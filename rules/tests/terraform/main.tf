terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints { ec2 = "http://127.0.0.1:5055" }
}

resource "aws_vpc" "main" {
  cidr_block                       = "10.0.0.0/16"
  assign_generated_ipv6_cidr_block = false
}

resource "aws_vpc_ipv4_cidr_block_association" "second" {
  vpc_id     = aws_vpc.main.id
  cidr_block = "10.1.0.0/16"
}

resource "aws_subnet" "public" {
  count      = 2
  vpc_id     = aws_vpc.main.id
  cidr_block = cidrsubnet(aws_vpc.main.cidr_block, 8, count.index + 1)
}

resource "aws_subnet" "data" {
  for_each   = { a = "10.0.10.0/24", b = "10.0.11.0/24" }
  vpc_id     = aws_vpc.main.id
  cidr_block = each.value
}

resource "aws_ec2_managed_prefix_list" "office" {
  name           = "office"
  address_family = "IPv4"
  max_entries    = 5
  entry {
    cidr        = "203.0.113.0/24"
    description = "head office"
  }
}

resource "aws_ec2_managed_prefix_list" "partners" {
  name           = "partners"
  address_family = "IPv4"
  max_entries    = 3
}

resource "aws_ec2_managed_prefix_list_entry" "partner" {
  cidr           = "198.51.100.0/24"
  prefix_list_id = aws_ec2_managed_prefix_list.partners.id
}

resource "aws_default_security_group" "default" {
  vpc_id = aws_vpc.main.id
  ingress {
    protocol  = -1
    self      = true
    from_port = 0
    to_port   = 0
  }
}

# Inline rules of every kind of peer.
resource "aws_security_group" "bastion" {
  name        = "bastion"
  description = "the way in"
  vpc_id      = aws_vpc.main.id
  ingress {
    description     = "ssh from the offices"
    protocol        = "tcp"
    from_port       = 22
    to_port         = 22
    prefix_list_ids = [aws_ec2_managed_prefix_list.office.id]
  }
  ingress {
    protocol         = "icmp"
    from_port        = 8
    to_port          = -1
    cidr_blocks      = ["10.0.0.0/8", "192.0.2.0/24"]
  }
  ingress {
    protocol         = "icmpv6"
    from_port        = -1
    to_port          = -1
    ipv6_cidr_blocks = ["::/0"]
  }
  egress {
    protocol    = "-1"
    from_port   = 0
    to_port     = 0
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "app" {
  name   = "app"
  vpc_id = aws_vpc.main.id
  ingress {
    protocol        = "tcp"
    from_port       = 8080
    to_port         = 8081
    security_groups = [module.web["blue"].group_id, module.web["green"].group_id]
    self            = true
  }
  ingress {
    protocol    = "6"
    from_port   = 22
    to_port     = 22
    cidr_blocks = ["10.0.1.10/32"]
  }
}

# Rules as resources of their own, old and new.
resource "aws_security_group" "db" {
  count  = 2
  name   = "db-${count.index}"
  vpc_id = aws_vpc.main.id
}

resource "aws_security_group_rule" "db_from_app" {
  count                    = 2
  type                     = "ingress"
  protocol                 = "tcp"
  from_port                = 5432
  to_port                  = 5432
  security_group_id        = aws_security_group.db[count.index].id
  source_security_group_id = aws_security_group.app.id
}

resource "aws_security_group_rule" "db_self" {
  type              = "ingress"
  protocol          = "all"
  from_port         = 0
  to_port           = 65535
  security_group_id = aws_security_group.db[0].id
  self              = true
}

resource "aws_security_group_rule" "db_partners" {
  type              = "egress"
  protocol          = "udp"
  from_port         = 0
  to_port           = 65535
  security_group_id = aws_security_group.db[1].id
  prefix_list_ids   = [aws_ec2_managed_prefix_list.partners.id]
  cidr_blocks       = ["172.16.0.0/12"]
}

resource "aws_security_group" "cache" {
  name   = "cache"
  vpc_id = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "cache" {
  for_each                     = { "0" = 6379, "1" = 6380 }
  security_group_id            = aws_security_group.cache.id
  referenced_security_group_id = aws_security_group.db[each.key].id
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
}

resource "aws_vpc_security_group_egress_rule" "cache_all" {
  security_group_id = aws_security_group.cache.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
  description       = "everything"
}

module "web" {
  source   = "./modules/web"
  for_each = { blue = 80, green = 8000 }
  name     = "web-${each.key}"
  port     = each.value
  vpc_id   = aws_vpc.main.id
}

resource "aws_default_network_acl" "default" {
  default_network_acl_id = aws_vpc.main.default_network_acl_id
  ingress {
    rule_no    = 100
    action     = "allow"
    protocol   = -1
    from_port  = 0
    to_port    = 0
    cidr_block = "0.0.0.0/0"
  }
  egress {
    rule_no    = 100
    action     = "allow"
    protocol   = "tcp"
    from_port  = 1024
    to_port    = 65535
    cidr_block = "0.0.0.0/0"
  }
  lifecycle { ignore_changes = [subnet_ids] }
}

resource "aws_network_acl" "public" {
  vpc_id     = aws_vpc.main.id
  subnet_ids = aws_subnet.public[*].id
  ingress {
    rule_no    = 200
    action     = "deny"
    protocol   = "icmp"
    from_port  = 0
    to_port    = 0
    icmp_type  = 5
    icmp_code  = -1
    cidr_block = "0.0.0.0/0"
  }
  ingress {
    rule_no         = 210
    action          = "allow"
    protocol        = "58"
    from_port       = 0
    to_port         = 0
    icmp_type       = -1
    icmp_code       = -1
    ipv6_cidr_block = "::/0"
  }
}

resource "aws_network_acl" "data" {
  vpc_id = aws_vpc.main.id
}

resource "aws_network_acl_rule" "data" {
  for_each       = { "100" = "5432", "110" = "6379" }
  network_acl_id = aws_network_acl.data.id
  rule_number    = tonumber(each.key)
  egress         = false
  protocol       = "tcp"
  rule_action    = "allow"
  cidr_block     = aws_vpc.main.cidr_block
  from_port      = each.value
  to_port        = each.value
}

resource "aws_network_acl_rule" "data_out" {
  network_acl_id = aws_network_acl.data.id
  rule_number    = 100
  egress         = true
  protocol       = "-1"
  rule_action    = "allow"
  cidr_block     = "0.0.0.0/0"
}

resource "aws_network_acl_association" "data" {
  for_each       = aws_subnet.data
  network_acl_id = aws_network_acl.data.id
  subnet_id      = each.value.id
}

resource "aws_network_interface" "bastion" {
  subnet_id         = aws_subnet.public[0].id
  private_ips       = ["10.0.1.10", "10.0.1.11"]
  security_groups   = [aws_security_group.bastion.id]
  source_dest_check = false
}

resource "aws_network_interface" "db" {
  for_each        = { a = 0, b = 1 }
  subnet_id       = aws_subnet.data[each.key].id
  private_ips     = [cidrhost(aws_subnet.data[each.key].cidr_block, 20)]
  security_groups = [aws_security_group.db[each.value].id]
}

resource "aws_network_interface_sg_attachment" "db_cache" {
  security_group_id    = aws_security_group.cache.id
  network_interface_id = aws_network_interface.db["a"].id
}

resource "aws_instance" "app" {
  ami                    = "ami-12c6146b"
  instance_type          = "m4.large"
  subnet_id              = aws_subnet.public[1].id
  private_ip             = "10.0.2.10"
  vpc_security_group_ids = [aws_security_group.app.id]
}

resource "aws_internet_gateway" "gw" {
  vpc_id = aws_vpc.main.id
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id
  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.gw.id
  }
}
