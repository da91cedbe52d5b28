// A sparse feed-forward sub-layer: router, experts behind a token dispatcher, and what its kind
// adds to the selected expert: the HyperExpert, a shared expert or an adapter.
//
// Legend: T tokens of this rank, K choices of each, C = T * K choices, S of them that are sent, D
// width, F inner width, N experts, e experts held here, R rows received here.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "configs/run.pb.h"
#include "kernels/grouped_ffn.h"
#include "model/config_values.h"
#include "model/hyper_network.h"
#include "model/parameter_factory.h"
#include "model/router.h"
#include "model/side_network.h"
#include "parallel/token_dispatcher.h"

namespace hypermoe {

// What sparse layers share, and which of them one is.
struct SparseParts {
  std::shared_ptr<TokenDispatcher> dispatcher;
  HyperNetwork* hyper = nullptr;  // kind hyper; outlives the layers
  int64_t sparse_index = 0;       // the layer's index in `hyper`
  int64_t adapter_width = 0;      // kind adapter
  Stack stack = Stack::kDecoder;  // that the layer is in
};

// What a pass over a sparse layer has decided and received. The pass can then be made again, in
// backward, without choosing experts or sending anything.
struct MoeRecord {
  at::Tensor expert_ids_TK, taken_TK;
  std::shared_ptr<DispatchPlan> plan;  // null: nothing recorded yet
  // What came to the experts held here, and back from the experts chosen; where nothing travels,
  // undefined.
  at::Tensor received, returned;
};

// What one pass over a sparse layer depends on beside its input.
struct MoePass {
  int64_t num_rows = 0;  // that the tokens are of
  RouterNoise noise;
  CapacityConfig capacity;
  // Within experts and the shared expert; its token_ids_R are those of the T tokens.
  InnerDropout dropout;
  bool measure = false;         // RoutingResult::squares_2; not when a record is followed
  MoeRecord* record = nullptr;  // filled if it is empty, otherwise followed; null: neither
};

class MoeLayer {
 public:
  // prefix: "h.3.mlp.". Parameters: MakeRouterMatrix, MakeExpertFfns (ffn_parameters.h) and those
  // of SideNetwork.
  MoeLayer(const std::string& prefix, const ModelConfig& config, const SparseParts& parts,
           ParameterFactory& factory);

  // y_TD = sum over the choices of gate * expert(x), 0 where the expert has no room, + what the
  // kind adds (HyperExpert(x): Eq. 9). In the precision of x_TD; gates act in the router's. With
  // model.router_jitter_in_place the jittered input takes the place of x for all of them where the
  // router sees x_TD itself, not a copy of another precision. Appends the routing decision to
  // `routing`. Collective over the expert group, in backward too, with zero tokens too.
  at::Tensor Forward(const at::Tensor& x_TD, const MoePass& pass,
                     std::vector<RoutingResult>* routing);

 private:
  bool AtOwner() const { return parts_.hyper != nullptr && parts_.hyper->at_owner(); }
  RoutingResult Route(const at::Tensor& x_TD, const MoePass& pass, MoeRecord* record) const;
  at::Tensor ChoicesSent(const at::Tensor& taken_TK) const;
  // The dispatcher's exchanges, recorded or taken from the record.
  RowsUnderWay StartDispatch(const at::Tensor& sent_SD, MoeRecord* record) const;
  at::Tensor FinishDispatch(RowsUnderWay rows, MoeRecord* record) const;
  at::Tensor Combine(const at::Tensor& rows_RD, MoeRecord* record) const;
  // squares_2: where to write RoutingResult::squares_2; null: nowhere.
  at::Tensor ApplyAtSource(const at::Tensor& x_TD, const RoutingResult& decision,
                           const InnerDropout& dropout, MoeRecord* record,
                           at::Tensor* squares_2) const;
  at::Tensor ApplyAtOwner(const at::Tensor& x_TD, const RoutingResult& decision,
                          const InnerDropout& dropout, MoeRecord* record,
                          at::Tensor* squares_2) const;
  at::Tensor HyperFactor(const RoutingResult& decision) const;
  // Whether HyperExperts see rows by the expert that their token has chosen, or no HyperExpert is.
  bool InExpertOrder(int64_t top_k) const {
    return top_k == 1 && (parts_.hyper == nullptr || parts_.hyper->by_expert());
  }
  at::Tensor HyperAtSource(const at::Tensor& x_TD, const at::Tensor& sorted_CD,
                           const RoutingResult& decision,
                           const std::shared_ptr<const DispatchPlan>& plan) const;
  at::Tensor RunExperts(const at::Tensor& rows_RD, const std::vector<int64_t>& rows_per_expert,
                        const InnerDropout& dropout) const;
  at::Tensor RunExpertsWhereTaken(const at::Tensor& rows_RD, const at::Tensor& gate_R1,
                                  const DispatchPlan& plan, const InnerDropout& dropout) const;

  Router router_;
  bool jitter_in_place_;
  Activation activation_;
  GroupedFfnWeights experts_;  // stacked over the experts held here
  SideNetwork side_;
  SparseParts parts_;
};

}  // namespace hypermoe
