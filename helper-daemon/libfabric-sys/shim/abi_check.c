/* Compares our declarations with a real libfabric's headers, at compile time: `tests/abi.rs`. */
#include "abi.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#define SAME_VALUE(name) _Static_assert(LF_##name == FI_##name, "FI_" #name)
#define SAME_FIELD(ours, our_field, theirs, their_field)                                      \
	_Static_assert(offsetof(struct ours, our_field) == offsetof(struct theirs, their_field) && \
			       sizeof(((struct ours *)0)->our_field) ==                             \
				       sizeof(((struct theirs *)0)->their_field),                   \
		       #theirs "." #their_field)
#define FIELD(suffix, field) SAME_FIELD(lf_##suffix, field, fi_##suffix, field)

SAME_VALUE(MSG);
SAME_VALUE(RMA);
SAME_VALUE(READ);
SAME_VALUE(RECV);
SAME_VALUE(SEND);
SAME_VALUE(REMOTE_READ);
SAME_VALUE(SOURCE);
SAME_VALUE(PROV_ATTR_ONLY);
SAME_VALUE(CONTEXT);
SAME_VALUE(CONTEXT2);
SAME_VALUE(ORDER_SAS);
SAME_VALUE(MR_LOCAL);
SAME_VALUE(MR_VIRT_ADDR);
SAME_VALUE(MR_ALLOCATED);
SAME_VALUE(MR_PROV_KEY);
SAME_VALUE(MR_ENDPOINT);
SAME_VALUE(ADDR_UNSPEC);
_Static_assert((int)LF_EP_RDM == FI_EP_RDM, "FI_EP_RDM");
_Static_assert((int)LF_PROGRESS_MANUAL == FI_PROGRESS_MANUAL, "FI_PROGRESS_MANUAL");
_Static_assert((int)LF_THREAD_DOMAIN == FI_THREAD_DOMAIN, "FI_THREAD_DOMAIN");
_Static_assert((int)LF_RM_ENABLED == FI_RM_ENABLED, "FI_RM_ENABLED");
_Static_assert((int)LF_CQ_FORMAT_TAGGED == FI_CQ_FORMAT_TAGGED, "FI_CQ_FORMAT_TAGGED");
_Static_assert((int)LF_WAIT_FD == FI_WAIT_FD, "FI_WAIT_FD");
_Static_assert((int)LF_CONTROL_GETWAIT == FI_GETWAIT, "FI_GETWAIT");
_Static_assert((int)LF_CONTROL_ENABLE == FI_ENABLE, "FI_ENABLE");
_Static_assert((int)LF_EAVAIL == FI_EAVAIL, "FI_EAVAIL");
_Static_assert((int)LF_ENOKEY == FI_ENOKEY, "FI_ENOKEY");
_Static_assert(sizeof(struct fi_context2) == 64, "fi_context2");

FIELD(tx_attr, msg_order);
FIELD(rx_attr, msg_order);
FIELD(tx_attr, iov_limit);
FIELD(tx_attr, size);
FIELD(rx_attr, size);
FIELD(ep_attr, type);
FIELD(ep_attr, max_msg_size);
FIELD(ep_attr, auth_key);
FIELD(domain_attr, name);
FIELD(domain_attr, threading);
FIELD(domain_attr, control_progress);
FIELD(domain_attr, data_progress);
FIELD(domain_attr, resource_mgmt);
FIELD(domain_attr, av_type);
FIELD(domain_attr, mr_mode);
FIELD(domain_attr, mr_key_size);
FIELD(domain_attr, tclass);
FIELD(fabric_attr, name);
FIELD(fabric_attr, prov_name);
FIELD(fabric_attr, prov_version);
FIELD(info, next);
FIELD(info, caps);
FIELD(info, mode);
FIELD(info, addr_format);
FIELD(info, src_addrlen);
FIELD(info, src_addr);
FIELD(info, tx_attr);
FIELD(info, rx_attr);
FIELD(info, ep_attr);
FIELD(info, domain_attr);
FIELD(info, fabric_attr);
FIELD(info, nic);
FIELD(av_attr, type);
FIELD(av_attr, flags);
FIELD(cq_attr, size);
FIELD(cq_attr, format);
FIELD(cq_attr, wait_obj);
FIELD(cq_attr, wait_set);
_Static_assert(sizeof(struct lf_cq_attr) == sizeof(struct fi_cq_attr), "fi_cq_attr");
_Static_assert(sizeof(struct lf_av_attr) == sizeof(struct fi_av_attr), "fi_av_attr");
_Static_assert(sizeof(struct lf_cq_entry) == sizeof(struct fi_cq_tagged_entry), "entry");
_Static_assert(sizeof(struct lf_cq_error) >= sizeof(struct fi_cq_err_entry), "error entry");
SAME_FIELD(lf_cq_entry, op_context, fi_cq_tagged_entry, op_context);
SAME_FIELD(lf_cq_entry, len, fi_cq_tagged_entry, len);
SAME_FIELD(lf_cq_entry, tag, fi_cq_tagged_entry, tag);
SAME_FIELD(lf_cq_error, op_context, fi_cq_err_entry, op_context);
SAME_FIELD(lf_cq_error, err, fi_cq_err_entry, err);
SAME_FIELD(lf_cq_error, prov_errno, fi_cq_err_entry, prov_errno);
SAME_FIELD(lf_cq_error, err_data_size, fi_cq_err_entry, err_data_size);

SAME_FIELD(lf_fid, ops, fid, ops);
SAME_FIELD(lf_fid_ops, close, fi_ops, close);
SAME_FIELD(lf_fid_ops, bind, fi_ops, bind);
SAME_FIELD(lf_fid_ops, control, fi_ops, control);
SAME_FIELD(lf_fabric, ops, fid_fabric, ops);
SAME_FIELD(lf_fabric_ops, domain, fi_ops_fabric, domain);
SAME_FIELD(lf_fabric_ops, trywait, fi_ops_fabric, trywait);
SAME_FIELD(lf_domain, ops, fid_domain, ops);
SAME_FIELD(lf_domain, mr, fid_domain, mr);
SAME_FIELD(lf_domain_ops, av_open, fi_ops_domain, av_open);
SAME_FIELD(lf_domain_ops, cq_open, fi_ops_domain, cq_open);
SAME_FIELD(lf_domain_ops, endpoint, fi_ops_domain, endpoint);
SAME_FIELD(lf_mr_ops, reg, fi_ops_mr, reg);
SAME_FIELD(lf_mr, descriptor, fid_mr, mem_desc);
SAME_FIELD(lf_mr, key, fid_mr, key);
SAME_FIELD(lf_av, ops, fid_av, ops);
SAME_FIELD(lf_av_ops, insert, fi_ops_av, insert);
SAME_FIELD(lf_av_ops, remove, fi_ops_av, remove);
SAME_FIELD(lf_av_ops, straddr, fi_ops_av, straddr);
SAME_FIELD(lf_cq, ops, fid_cq, ops);
SAME_FIELD(lf_cq_ops, read, fi_ops_cq, read);
SAME_FIELD(lf_cq_ops, readerr, fi_ops_cq, readerr);
SAME_FIELD(lf_ep, ops, fid_ep, ops);
SAME_FIELD(lf_ep, cm, fid_ep, cm);
SAME_FIELD(lf_ep, msg, fid_ep, msg);
SAME_FIELD(lf_ep, rma, fid_ep, rma);
SAME_FIELD(lf_ep_ops, cancel, fi_ops_ep, cancel);
SAME_FIELD(lf_cm_ops, getname, fi_ops_cm, getname);
SAME_FIELD(lf_msg_ops, recv, fi_ops_msg, recv);
SAME_FIELD(lf_msg_ops, send, fi_ops_msg, send);
SAME_FIELD(lf_rma_ops, read, fi_ops_rma, read);
